// A virtualized grid: only visible images exist as elements. Browsers limit the height of an element, so the height is capped.
// Beyond the cap, small scroll steps move by pixels, and large ones proportionally to the complete height.

import { fetchPage } from "./api.js";
import { el, showStatus } from "./dom.js";
import { isTagged, toggleTag } from "./tags.js";

const BLOCK = 120; // samples per request
const MAX_BLOCKS = 40; // blocks whose images are cached
const GAP = 4;
const MAX_HEIGHT = 8_000_000;
const SETTLE_MS = 60;

export class Grid {
  // `onMove(from, to, total, complete, reading)`; `onSource({ samples, complete })`: what is known of all samples of the source.
  constructor(element, { onMove, onOpen, hrefOf, onSource = () => {} }) {
    Object.assign(this, { element, onMove, onOpen, hrefOf, onSource });
    this.layer = el("div", { class: "layer" });
    this.spacer = el("div");
    element.append(this.layer, this.spacer);
    this.cells = new Map();
    this.side = 80;
    this.selected = 0;
    element.addEventListener("scroll", () => this.scrolled(), { passive: true });
    element.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.layout()).observe(element);
    this.show(null);
  }

  // Shows another selection: parameters of `page` in app.py, or null for none.
  show(query, expected = 0) {
    for (const block of this.blocks?.values() ?? []) this.drop(block);
    this.query = query;
    this.blocks = new Map();
    this.total = expected;
    this.complete = false;
    this.reading = null;
    this.top = 0;
    this.selected = 0;
    this.last = 0;
    this.element.scrollTop = 0;
    this.clear();
    this.layout();
  }

  resize(side) {
    const first = this.first();
    this.side = side;
    this.clear();
    this.layout();
    this.scrollTo(first, true);
  }

  layout() {
    const width = this.element.clientWidth - 2 * GAP;
    if (width <= 0) return;
    this.columns = Math.max(1, Math.floor((width + GAP) / (this.side + GAP)));
    this.pitch = (width + GAP) / this.columns;
    const rows = Math.ceil(this.total / this.columns);
    this.height = rows * this.pitch + 2 * GAP;
    this.spacer.style.height = `${Math.min(this.height, MAX_HEIGHT)}px`;
    this.clear();
    this.move(this.top);
  }

  get view() { return this.element.clientHeight; }
  get maxTop() { return Math.max(0, this.height - this.view); }
  get maxScroll() { return Math.max(1, this.element.scrollHeight - this.view); }
  first() { return Math.max(0, Math.floor((this.top - GAP) / this.pitch)) * this.columns; }

  scrolled() {
    const position = this.element.scrollTop;
    const step = position - this.last;
    if (step === 0) return;
    this.last = position;
    const capped = this.height > MAX_HEIGHT;
    const small = Math.abs(step) < this.view && position > 0 && position < this.maxScroll - 1;
    this.top = capped && small ? this.top + step : (position / this.maxScroll) * this.maxTop;
    this.draw();
  }

  // Scrolls to this offset in px of the complete grid, and moves the scroll bar.
  move(top) {
    this.top = Math.min(Math.max(0, top), this.maxTop);
    this.element.scrollTop = this.maxTop ? (this.top / this.maxTop) * this.maxScroll : 0;
    this.last = this.element.scrollTop;
    this.draw();
  }

  scrollTo(index, atTop = false) {
    const above = Math.floor(index / this.columns) * this.pitch;
    if (atTop || above < this.top) this.move(above);
    else if (above + this.pitch + 2 * GAP > this.top + this.view) this.move(above + this.pitch + 2 * GAP - this.view);
  }

  draw() {
    if (!this.query) return;
    this.top = Math.min(Math.max(0, this.top), this.maxTop);
    const from = this.first();
    const to = Math.min(this.total, from + (Math.ceil(this.view / this.pitch) + 1) * this.columns);
    for (const [index, cell] of this.cells) {
      if (index < from || index >= to) { cell.remove(); this.cells.delete(index); }
    }
    for (let index = from; index < to; index += 1) this.cell(index);
    const blocks = new Set();
    for (let block = Math.floor(from / BLOCK); block <= Math.floor(Math.max(from, to) / BLOCK); block += 1) blocks.add(block);
    this.request(blocks);
    this.moved(from, to);
  }

  moved(from = this.first(), to = this.first() + this.cells.size) { this.onMove(from, to, this.total, this.complete, this.reading); }

  cell(index) {
    let cell = this.cells.get(index);
    if (!cell) {
      cell = el("a", { class: "cell", tabindex: "-1" });
      cell.addEventListener("click", () => { this.selected = index; });
      this.cells.set(index, cell);
      this.layer.append(cell);
      this.fill(index, cell);
    }
    const x = GAP + (index % this.columns) * this.pitch;
    const y = GAP + Math.floor(index / this.columns) * this.pitch - this.top;
    cell.style.width = cell.style.height = `${this.pitch - GAP}px`;
    cell.style.transform = `translate(${x}px, ${y}px)`;
    cell.classList.toggle("selected", index === this.selected);
  }

  fill(index, cell) {
    const sample = this.blocks.get(Math.floor(index / BLOCK))?.page?.samples[index % BLOCK];
    if (!sample) return;
    if (sample.shard !== undefined) cell.setAttribute("href", this.hrefOf(sample));
    if (sample.error !== undefined) {
      cell.classList.add("unreadable");
      cell.setAttribute("aria-label", `Unreadable: ${sample.error}`);
      cell.replaceChildren(el("span", { class: "reason", dir: "auto" }, sample.error.replace(/^\S*\//, ""))); // without the folder
      cell.title = sample.error;
      return;
    }
    cell.classList.remove("unreadable");
    cell.removeAttribute("aria-label");
    const image = el("img", { src: sample.url, alt: `Sample ${sample.key}`, draggable: "false" });
    image.addEventListener("load", () => cell.classList.toggle("small", image.naturalWidth < 2 * this.side));
    image.addEventListener("error", () => { cell.classList.add("unreadable"); cell.textContent = "unreadable"; });
    cell.title = sample.key;
    cell.classList.toggle("tagged", isTagged(sample));
    cell.replaceChildren(image);
    const name = this.nameOf?.(sample.label);
    if (name && this.side >= 64) cell.append(el("span", { class: "tag", dir: "auto" }, name));
  }

  // Requests visible blocks once scrolling settles, and aborts requests for blocks that are no longer visible.
  request(visible) {
    for (const [number, block] of this.blocks) {
      if ((!block.page || block.page.reading) && !visible.has(number)) { this.drop(block); this.blocks.delete(number); }
    }
    clearTimeout(this.settleTimer);
    const missing = [...visible].filter((number) => !this.blocks.has(number) && (number * BLOCK < this.total || number === 0));
    for (const number of visible) {
      const block = this.blocks.get(number);
      if (block) { this.blocks.delete(number); this.blocks.set(number, block); }
    }
    if (missing.length) this.settleTimer = setTimeout(() => missing.forEach((number) => this.load(number)), this.blocks.size ? SETTLE_MS : 0);
  }

  async load(number) {
    if (this.blocks.has(number)) return;
    const { query } = this;
    const block = { abort: new AbortController() };
    this.blocks.set(number, block);
    do { // while a tar without index is read, each response has more samples; the server waits before it answers
      try {
        const page = await fetchPage({ ...query, first: number * BLOCK, count: BLOCK }, block.abort.signal);
        if (this.query !== query || block.abort.signal.aborted) { this.drop({ page }); return; }
        for (const sample of block.page?.samples ?? []) if (sample.url) URL.revokeObjectURL(sample.url);
        block.page = page;
      } catch (error) {
        if (error.name === "AbortError" || this.query !== query) return;
        showStatus(error.message);
        const first = number * BLOCK; // the reason is in the place of the first image; the block is not requested again
        const total = Math.max(this.total, first + 1);
        block.page = { samples: [{ error: error.message }], total, complete: this.complete, reading: null };
      }
      this.loaded(number, block);
    } while (block.page.reading);
  }

  loaded(number, block) {
    const changed = block.page.total !== this.total || block.page.complete !== this.complete;
    this.total = block.page.total;
    this.complete = block.page.complete;
    this.reading = block.page.reading;
    if (block.page.source) this.onSource(block.page.source);
    while (this.blocks.size > MAX_BLOCKS) {
      const [oldest, block] = this.blocks.entries().next().value;
      this.drop(block);
      this.blocks.delete(oldest);
    }
    if (changed) this.layout();
    for (const [index, cell] of this.cells) if (Math.floor(index / BLOCK) === number) this.fill(index, cell);
    // Without indexes, reads the next tar when the end of the known samples is near.
    if (!this.complete && !this.reading && this.first() + 4 * BLOCK > this.total) this.load(Math.floor(this.total / BLOCK));
    this.moved();
  }

  drop(block) {
    block.abort?.abort();
    for (const sample of block.page?.samples ?? []) if (sample.url) URL.revokeObjectURL(sample.url);
  }

  clear() {
    this.cells.clear();
    this.layer.replaceChildren();
  }

  key(event) {
    const screen = Math.max(1, Math.floor(this.view / this.pitch)) * this.columns;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
      PageUp: -screen, PageDown: screen, Home: -Infinity, End: Infinity,
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") {
      const sample = this.sample();
      if (sample?.shard !== undefined) this.onOpen(sample);
    } else if (event.key in steps) {
      this.selected = Math.min(Math.max(0, this.selected + steps[event.key]), Math.max(0, this.total - 1));
      this.scrollTo(this.selected);
      this.draw();
    } else return;
    event.preventDefault();
  }

  // Tags the selected image, or removes its tag.
  tag() {
    const sample = this.sample();
    if (!sample) return;
    toggleTag(sample);
    this.cells.get(this.selected)?.classList.toggle("tagged", isTagged(sample));
  }

  sample() { return this.blocks.get(Math.floor(this.selected / BLOCK))?.page?.samples[this.selected % BLOCK]; }
}
