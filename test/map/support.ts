/** A headless Chromium for the tests of the page map, if the machine has one. */
import { existsSync } from "node:fs";
import { type Browser, chromium, type Page } from "playwright-core";

const executablePath = ["chromium", "chromium-browser", "google-chrome"]
  .map((name) => Bun.which(name))
  .find((path) => path !== null && existsSync(path));

export const hasBrowser = executablePath !== undefined;

export async function openBrowser(): Promise<Browser> {
  return await chromium.launch({ executablePath: executablePath!, args: ["--no-sandbox"] });
}

/** A page that collects its errors in `errors`. */
export async function openPage(
  browser: Browser,
  url: string,
  colorScheme: "dark" | "light" = "light",
): Promise<{ page: Page; errors: string[] }> {
  const page = await browser.newPage({ viewport: { width: 1000, height: 700 }, colorScheme });
  const errors: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(url);
  return { page, errors };
}

/** Moves the mouse to the middle of cell `index` of the current level. Returns the hover text. */
export async function hover(page: Page, index: number): Promise<string> {
  const [x, y] = (await page.evaluate(`(() => {
    const box = canvas.getBoundingClientRect();
    const [left, top, size] = layout().rectOf(${index});
    return [box.left + left + size / 2, box.top + top + size / 2];
  })()`)) as [number, number];
  await page.mouse.move(x, y);
  return (await page.textContent("#tip")) ?? "";
}

/** Waits until an expression of the page is true. `waitForFunction` would need unsafe-eval. */
export async function waitUntil(page: Page, expression: string): Promise<void> {
  while (!(await page.evaluate(expression))) await Bun.sleep(20);
}
