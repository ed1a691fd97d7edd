"""`models:` -> the core's models: what each costs and can do, from the file, else from the price book."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from urllib.parse import urlsplit

from gateway.config import schema
from gateway.config.endpoints import Endpoint, as_one, replicas_of
from gateway.config.interpolate import Missing
from gateway.config.pricebook import Listing, PriceBook, known_by, open_book
from gateway.config.prices import Book, NotInTheBook, moment_text, needs_book, price_of
from gateway.config.problems import Data, Problems, Warned
from gateway.config.schema_prices import TokenPrice
from gateway.config.types import ProviderConfig
from gateway.core.dialects import bills_filtered
from gateway.core.forms import Endpoint as Asked
from gateway.core.pricing import NANO_PER_USD, Price
from gateway.core.routing import Model, Rules, Timeouts

_HOW_TO_PRICE = (
    "`price: {gpu_hour_usd, tokens_per_second}`, `{usd_per_hour, tokens_per_second}`, `{input, output}` or `unmetered`"
)
_PER_TOKEN = Decimal("0.0005")  # USD a million: no model is that cheap, but a price written for one token is
_NEW_CAP_HOSTS = ("api.openai.com", ".openai.azure.com")
_THROUGH_LITELLM = frozenset(map(str, (Asked.CHAT, Asked.EMBEDDINGS)))  # what `providers.litellm` answers
_SEEN_OR_HEARD = frozenset({"images", "audio"})
_ALL_BUT_RARE: frozenset[str] = Model._field_defaults["supports"]


class Models:
    """All models of a file. The price book is opened only if one of them needs it."""

    def __init__(
        self,
        file: schema.RoutesFile,
        providers: Mapping[str, ProviderConfig],
        endpoints: Mapping[str, Sequence[Endpoint]],
        problems: Problems,
    ) -> None:
        self.problems = problems
        self.written = file.models
        self.defaults = file.defaults or schema.Defaults()
        self.providers = providers
        self.endpoints = endpoints
        self.borrowed: dict[str, str] = {}  # model -> the entry whose price it was given by name alone
        self.book_name = ""
        self.models = {name: self._model(name, each) for name, each in file.models.items()}

    @cached_property
    def book(self) -> PriceBook:
        book = open_book()
        self.book_name = book.name
        return book

    def _model(self, name: str, written: schema.Model) -> Model:
        endpoints = self.endpoints.get(name, ())
        provider = as_one(self.providers[written.provider], endpoints)
        hosting = written.hosting or ("self" if provider.dialect == "local" else "api")
        wildcard = name.endswith("/*")
        upstream = "" if wildcard else str(written.model or name)
        listing = self._listing(name, upstream, provider) if hosting == "api" and not wildcard else None
        disabled = written.model.why if isinstance(written.model, Missing) else provider.disabled
        price = self._price(name, hosting, listing, disabled)
        if listing and needs_book(written.price) and not known_by(provider):
            self.borrowed[name] = listing.name
        defaults = self.defaults
        return Model(
            name=name,
            provider=written.provider,
            upstream_name=upstream,
            hosting=hosting,
            price=price,
            context_window=first(written.context_window, defaults.context_window, listing and listing.context_window),
            max_output_tokens=first(
                written.max_output_tokens, defaults.max_output_tokens, listing and listing.max_output_tokens
            ),
            supports=frozenset(first(written.supports, defaults.supports, _usual_supports(provider, listing))),
            set=plain({**(defaults.set or {}), **(written.set or {})}),
            drop=frozenset((*(defaults.drop or ()), *(written.drop or ()))),
            timeouts=timeouts(written.timeout),
            replicas=replicas_of(endpoints),
            apis=provider.apis,
            cap_name=_cap_name(provider),
            server=provider.server,
            bills_filtered=bills_filtered(provider.server or str(provider.options.get("litellm_provider"))),
            only=_THROUGH_LITELLM if provider.dialect == "litellm" else frozenset(),
            max_extra_nano=nano(first(written.max_extra_usd, defaults.max_extra_usd, None)),
            max_in_flight=first(written.max_in_flight, defaults.max_in_flight, None),
            disabled=disabled,
            prices=self._wildcard_prices(provider) if wildcard and price is None and hosting == "api" else {},
        )

    def _listing(self, name: str, upstream: str, provider: ProviderConfig) -> Listing | None:
        """Of an API's model: a self-hosted one never takes an API's price. Not asked where the file says it all."""
        written = self.written[name]
        said = (written.context_window, written.max_output_tokens, written.supports)
        if None not in said and not needs_book(written.price):
            return None
        return self.book.find(upstream, known_by(provider))

    def _price(self, name: str, hosting: str, listing: Listing | None, disabled: str) -> Price | None:
        written = self.written[name].price
        if written is None:
            return listing.price if listing else None
        book: Book = (listing.sheet, self.book_name) if listing and listing.sheet else None
        try:
            return price_of(written, book)
        except NotInTheBook:
            if not disabled:  # else nobody can tell whose prices would hold
                why = "has none for self-hosted models" if hosting == "self" else "does not know this model"
                said = f"gives neither `input` nor `output`, and the price book {why}: give both"
                self.problems.add(("models", name, "price"), said)
            return None

    def _wildcard_prices(self, provider: ProviderConfig) -> Mapping[str, Price]:
        known = known_by(provider)
        return self.book.prices_of(known) if known else {}

    def warnings(self, rules: Rules) -> Iterator[str]:
        for name, model in self.models.items():
            written = self.written[name]
            if isinstance(written.model, Missing):
                yield Warned(f"model {name} is disabled: {written.model.why}", "credentials", name)
            if not model.disabled:
                yield from self._about_price(model, written)
        baselines = {route.baseline for route in (*rules.routes, rules.direct) if route.baseline}
        for name in sorted(baselines):
            if self.models[name].price is None:
                text = f"baseline {name} has no known price, so no savings are shown against it"
                yield Warned(text, "price", name)

    def _about_price(self, model: Model, written: schema.Model) -> Iterator[str]:
        if model.name in self.borrowed and model.price:
            known = self.borrowed[model.name]
            text = f"model {model.name} is priced as {known} of the book by its name alone: check that, or price it"
            yield Warned(text, "price", model.name)
        if model.price is not None and model.price.starts > time.time():
            text = f"model {model.name} has no price before {moment_text(model.price.starts)}, so its cost is unknown"
            yield Warned(text, "price", model.name)
        if model.price is None and not model.prices:
            why = "is self-hosted" if model.hosting == "self" else "is not in the price book"
            text = f"model {model.name} {why} and has no price, so its cost is unknown; give it {_HOW_TO_PRICE}"
            yield Warned(text, "unpriced", model.name)
        if any(each.output is not None and 0 < each.output < _PER_TOKEN for each in _token_prices(written)):
            text = f"model {model.name} costs under ${_PER_TOKEN} a million tokens: prices are per million, not per one"
            yield Warned(text, "price", model.name)


def default_apis(dialect: str, base_url: str) -> tuple[str, ...]:
    """What a server has where the file does not say: others than OpenAI have little of responses, or nothing.

    llama.cpp's own responses say `completed` where the cap cut the answer, take no notice of `text.format` and of tools
    that it does not have, and leave out indices, sequence numbers and log probabilities. Chat has it all; so it is
    translated (docs/decisions/0019-responses.md).
    """
    host = urlsplit(base_url).hostname or ""
    if dialect == "local":
        # Messages too are better translated: its own take no notice of schemas, and its refusals are not in Anthropic's
        # words (decision 0017). What it counts, it counts right.
        return ("chat", "count_tokens")
    return ("chat", "responses") if host.endswith(_NEW_CAP_HOSTS) else ("chat",)


def _token_prices(written: schema.Model) -> list[TokenPrice]:
    price = written.price
    return price if isinstance(price, list) else [price] if isinstance(price, TokenPrice) else []


def _usual_supports(provider: ProviderConfig, listing: Listing | None) -> frozenset[str]:
    """Of a model that says nothing of it. The embedded server is given texts alone: it has no option for more."""
    if listing is not None:
        return frozenset(listing.supports)
    return _ALL_BUT_RARE - _SEEN_OR_HEARD if provider.dialect == "local" else _ALL_BUT_RARE


def _cap_name(provider: ProviderConfig) -> str:
    """OpenAI's reasoning models refuse `max_tokens` (platform.openai.com/docs/api-reference/chat). At Alibaba it bounds
    the answer alone with some models; the newer name bounds the thinking too, which is billed
    (alibabacloud.com/help/en/model-studio/api-compatibility-upgrade-notice, read 2026-11-26). Others know the older.
    """
    return "max_completion_tokens" if provider.server in ("openai", "azure", "dashscope") else "max_tokens"


def nano(usd: Decimal | None) -> int | None:
    return None if usd is None else int(usd * NANO_PER_USD)


def timeouts(written: schema.Timeouts | None) -> Timeouts:
    if written is None:
        return Timeouts()
    return Timeouts(written.connect, written.attempt, written.first_token, written.idle, written.total)


def first(given: Data, default: Data, built_in: Data) -> Data:
    """A setting's value: the entry's own, else that of `defaults`, else the built-in one."""
    if given is not None:
        return given
    return built_in if default is None else default


def plain(value: Data) -> Data:
    """What `set` merges into a body: JSON's own kinds of value."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, str):
        return str(value)
    return float(value) if isinstance(value, Decimal) else value
