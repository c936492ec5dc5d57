// Builds elements from names, attributes and text, never from markup, because keys and captions may contain markup.

export const $ = (id) => document.getElementById(id);

export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const formatCount = (number) => number.toLocaleString("en");

export function formatBytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (number >= 1000 && unit < units.length - 1) { number /= 1000; unit += 1; }
  return `${number >= 100 || unit === 0 ? Math.round(number) : number.toPrecision(3)} ${units[unit]}`;
}

let hideTimer;
export function showStatus(text) {
  const status = $("status");
  status.textContent = text;
  status.hidden = false;
  clearTimeout(hideTimer);
  hideTimer = setTimeout(() => { status.hidden = true; }, 6000);
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    showStatus(`Copied ${text}`);
  } catch {
    showStatus(`The browser does not allow copying; copy it manually: ${text}`);
  }
}
