// node shoot.mjs GIVEN.json PICTURE.png: draws one dashboard in Chromium and takes its picture. Writes to stdout, as JSON,
// what each panel drew and what the console said. Nothing is fetched: all requests are answered from node_modules.
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import UPNG from "upng-js";

const [given, picture] = process.argv.slice(2);
const home = dirname(fileURLToPath(import.meta.url));
const modules = join(home, "node_modules");
const FONTS = join(modules, "@fontsource/inter/files");

const bundle = await build({
  entryPoints: [join(home, "page.jsx")],
  bundle: true,
  write: false,
  outdir: "out",
  jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"', global: "window" },
  loader: { ".ttf": "dataurl", ".svg": "dataurl", ".png": "dataurl", ".woff2": "dataurl", ".woff": "dataurl" },
  logLevel: "error",
});
const file = (ending) => bundle.outputFiles.find(({ path }) => path.endsWith(ending)).text;
const html = `<!doctype html><meta charset="utf-8"><title>dashboard</title><style>body { margin: 0 } ${file(".css")}</style><div id="root"></div>
<script>window.GIVEN = ${readFileSync(given, "utf8").replaceAll("<", "\\u003c")};</script><script src="/page.js"></script>`;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-color-profile=srgb"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1600, height: 900 } });
  const said = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  await page.route("**/*", (route) => {
    const { pathname } = new URL(route.request().url());
    if (pathname === "/") return route.fulfill({ contentType: "text/html", body: html });
    if (pathname === "/page.js") return route.fulfill({ contentType: "text/javascript", body: file(".js") });
    const icon = join(modules, "@grafana/ui/dist/public/img/icons", pathname.slice(pathname.indexOf("/icons/") + 7));
    if (pathname.includes("/icons/") && existsSync(icon)) return route.fulfill({ path: icon });
    const font = /Inter-(Regular|Medium)\.woff2$/.exec(pathname); // the theme asks for them by Grafana's own names
    if (font) return route.fulfill({ path: join(FONTS, `inter-latin-${font[1] === "Medium" ? 500 : 400}-normal.woff2`) });
    said.push(`nothing at ${pathname}`);
    return route.abort();
  });
  await page.goto("http://dashboard.invalid/");
  await page.waitForFunction(drawn, undefined, { timeout: 30_000 }).catch(() => said.push("some panels drew nothing"));
  await page.waitForTimeout(1000); // transitions
  const all = await page.$("#dashboard");
  if (all === null) throw new Error(`no dashboard: ${said.join("\n")}`);
  await page.setViewportSize({ width: 1600, height: Math.ceil((await all.boundingBox()).height) + 16 });
  await page.waitForTimeout(300);
  const panels = await page.evaluate(look); // now that all of it is in sight
  const taken = UPNG.decode(await page.screenshot({ animations: "disabled" }));
  const pixels = UPNG.toRGBA8(taken);
  writeFileSync(picture, Buffer.from(UPNG.encode(pixels, taken.width, taken.height, 128))); // a third of the size
  process.stdout.write(JSON.stringify({ said, panels }));
} finally {
  await browser.close();
}

// Whether every panel has what its kind draws.
function drawn() {
  const panels = [...document.querySelectorAll(".panel")];
  const kinds = { timeseries: "canvas", table: "[role=row]", stat: "span", bargauge: "span" };
  return panels.length > 0 && panels.every((panel) => panel.querySelector(kinds[panel.dataset.kind]) !== null);
}

// Of each panel: its text, the rows of its table, how many pixels of its charts are drawn and in how many colours.
function look() {
  return [...document.querySelectorAll(".panel")].map((panel) => {
    const colours = new Set();
    let pixels = 0;
    for (const canvas of panel.querySelectorAll("canvas")) {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] < 200) continue;
        pixels += 1;
        colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
      }
    }
    const rows = panel.querySelectorAll("[role=row]").length;
    return { id: Number(panel.dataset.id), text: panel.innerText, rows, pixels, colours: colours.size };
  });
}
