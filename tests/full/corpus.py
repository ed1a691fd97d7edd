"""Texts of every kind that tokenizers find cheap or dear, made here: languages, code, and what nobody would write.

Languages: the first article of the Universal Declaration of Human Rights (ohchr.org), which has no owner.
"""

# ruff: noqa: RUF001 - letters that look alike are what languages are made of

from __future__ import annotations

import base64
import json
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
SIZE = 2000  # characters at most of one text
FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")

LANGUAGES = {
    "English": ["All human beings are born free and equal in dignity and rights."],
    "Latin script": [
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
        "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
        "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
        "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
        "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv.",
        "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
        "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi.",
        "Minden emberi lény szabadon születik és egyenlő méltósága és joga van.",
    ],
    "Cyrillic, Greek": [
        "Все люди рождаются свободными и равными в своём достоинстве и правах.",
        "Всі люди народжуються вільними і рівними у своїй гідності та правах.",
        "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    ],
    "Chinese": ["人人生而自由，在尊严和权利上一律平等。", "人皆生而自由；在尊嚴及權利上均各平等。"],
    "Japanese, Korean": [
        "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。",
        "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    ],
    "Arabic, Hebrew": [
        "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
        "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
        "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند.",
    ],
    "Indic scripts": [
        "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
        "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।",
        "மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்; அவர்கள் மதிப்பிலும் உரிமைகளிலும் சமமானவர்கள்.",
    ],
    "Thai, Khmer, Burmese, Tibetan": [
        "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
        "មនុស្សទាំងអស់ កើតមកមានសេរីភាព និងសមភាព ក្នុងផ្នែកសេចក្ដីថ្លៃថ្នូរនិងសិទ្ធិ។",
        "လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း၊ မွေးဖွားလာသူများ ဖြစ်သည်။",
        "འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ་སྐྱེས་ཙམ་ཉིད་ནས་ཆེ་མཐོངས་དང༌།",
    ],
    "other scripts": [
        "Բոլոր մարդիկ ծնվում են ազատ ու հավասար իրենց արժանապատվությամբ ու իրավունքներով։",
        "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით.",
        "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።",
        "ᓱᕈᓯᑦ ᐃᓅᖃᑎᒌᑦ", "ᎾᏍᎩ ᏂᎦᏓ ᎠᏂᏴᏫ", "𐌰𐌻𐌻𐌰𐌹 𐌼𐌰𐌽𐌽𐌰𐌽𐍃", "𒀀𒈾 𒂍𒃲", "𓂋𓏤𓈖 𓆎𓅓𓏏𓊖",
    ],
}  # fmt: skip
EMOJI = ("👩‍👩‍👧‍👦", "🏳️‍🌈", "👩🏽‍🚀", "🇩🇪🇯🇵", "1️⃣", "🧑🏿‍❤️‍💋‍🧑🏻", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "😀🎉")
SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|start_header_id|>", "<|eot_id|>", "<start_of_turn>", "<bos>",
    "</s>", "[INST]", "<|channel|>", "<｜begin▁of▁sentence｜>", "<|fim_prefix|>", "<0x0A>", "<unused42>", "[CLS]",
)  # fmt: skip
BLANKS = (" ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u200b", "\u2028", "\ufeff", "    \n\t", "\n\n\n ")


def corpus() -> dict[str, list[str]]:
    """By kind. The same every time."""
    chance = random.Random(4)  # noqa: S311 - the same texts every time
    kinds = {name: [filled(text) for text in texts] for name, texts in LANGUAGES.items()}
    kinds["code"] = [
        (ROOT / name).read_text()[:SIZE] for name in ("gateway/engine.py", "routes.schema.json", "scripts/test")
    ] + [filled("for(;;){i^=~0x1F<<3;}#!/\\\\$@%&*"), filled("SELECT * FROM t WHERE a<>'b' AND c>=1;\n\t\t")]
    kinds["emoji"] = [filled(each) for each in EMOJI] + [filled("".join(EMOJI))]
    noise = chance.randbytes(SIZE)
    kinds["base64, hex"] = [base64.b64encode(noise).decode()[:SIZE], noise.hex()[:SIZE], noise.hex(" ").upper()[:SIZE]]
    kinds["digits"] = [
        "".join(chance.choices("0123456789", k=SIZE)), filled("٣١٤١٥٩"), filled("一二三４５６"), filled("1,234.56 "),
        filled("𝟏𝟐𝟑"), "7" * SIZE,
    ]  # fmt: skip
    kinds["white space"] = [each * (SIZE // len(each)) for each in BLANKS] + ["".join(chance.choices(BLANKS, k=700))]
    marks = [chr(code) for code in range(0x300, 0x370)]
    kinds["combining marks"] = [
        "".join(letter + "".join(chance.choices(marks, k=8)) for letter in "Zalgo" * 30),
        "".join(marks * 5),
        *(unicodedata.normalize("NFD", text) for name in ("Latin script", "Japanese, Korean") for text in kinds[name]),
    ]
    kinds["grows when normalised"] = list(growing())
    kinds["looks like special tokens"] = [filled(each) for each in SPECIAL] + [filled("".join(SPECIAL))]
    quoted = json.dumps({"said": 'a "b" \\ c', "é": "中\n"}, ensure_ascii=True)
    for _ in range(3):
        quoted = json.dumps(quoted)
    kinds["escaped JSON"] = [filled(quoted), "\\" * SIZE, filled("\\u00e9\\n"), filled('\\"'), filled("\\\\u4e2d")]
    kinds["anything"] = ["".join(anything(chance)) for _ in range(12)] + ["".join(map(chr, range(1, 128)))]
    return kinds


def filled(text: str) -> str:
    return text * max(1, SIZE // len(text))


def growing() -> Iterator[str]:
    """All characters whose normal form is longer than they are, those that grow most alone."""
    found = [(factor, chr(code)) for code in range(0x110000) if (factor := growth(code)) > 1]
    found.sort(reverse=True)
    for _, character in found[:8]:
        yield filled(character)
    without_syllables = [character for _, character in found if not "가" <= character <= "힣"]
    for start in range(0, len(without_syllables), SIZE // 2):
        yield "".join(without_syllables[start : start + SIZE // 2])


def growth(code: int) -> float:
    """How many times as many bytes its longest normal form has."""
    if 0xD800 <= code <= 0xDFFF:
        return 0.0
    character = chr(code)
    return max(len(unicodedata.normalize(form, character).encode()) for form in FORMS) / len(character.encode())


def anything(chance: random.Random) -> Iterator[str]:
    """Characters from all of Unicode, assigned or not."""
    for _ in range(400):
        code = chance.choice((chance.randrange(0x80), chance.randrange(0x3000), chance.randrange(0x110000)))
        if not 0xD800 <= code <= 0xDFFF:
            yield chr(code)
