// The embedding map: real and generated images as points of a 2-D projection of their features. All points are rendered once to an
// offscreen canvas, which zooming and panning transform; it is rendered again when the view settles.

import { fetchMap } from "./api.js";
import { $, el, formatCount } from "./dom.js";

export const REAL = "real/train";
const MAX_CORNERS = 96; // of a region, so that it fits into a URL
const POINT_PX = [1.5, 4.5]; // range of point sizes; dense maps have small points
const MARGIN_PX = 14;
const SETTLE_MS = 120;

// Whether a point is in a polygon x, y, x, y, …, by ray casting; equals `in_polygon` in map.py.
function inPolygon(corners, x, y) {
  let found = false;
  for (let at = 0; at < corners.length; at += 2) {
    const next = (at + 2) % corners.length;
    const [x0, y0, x1, y1] = [corners[at], corners[at + 1], corners[next], corners[next + 1]];
    if ((y0 > y) !== (y1 > y) && x < x0 + (y - y0) * ((x1 - x0) / (y1 - y0))) found = !found;
  }
  return found;
}

export class ImageMap {
  // `hrefOf(source, region)`: the URL of the selected images; a region is "all", or its corners "x_y_x_y_…".
  constructor(element, { hrefOf }) {
    Object.assign(this, { element, hrefOf });
    this.canvas = element.querySelector("canvas");
    this.offscreen = document.createElement("canvas");
    this.corners = [];
    this.pointers = new Map();
    for (const type of ["pointerdown", "pointermove", "pointerup"]) this.canvas.addEventListener(type, (event) => this[type](event));
    this.canvas.addEventListener("pointercancel", (event) => this.pointerup(event));
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    $("zoom-in").addEventListener("click", () => this.zoom(1.5));
    $("zoom-out").addEventListener("click", () => this.zoom(1 / 1.5));
    $("select-visible").addEventListener("click", () => this.selectVisible());
    $("select-all").addEventListener("click", () => this.selectAll());
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    new MutationObserver(() => this.render()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  // Shows the selected images of a source on the map `of` a source of generated images.
  async show(source, region, of) {
    if (of !== this.of) Object.assign(this, { points: null, view: null, rendered: null });
    Object.assign(this, { source, region, of });
    this.corners = region === "all" ? [] : region.split("_").map(Number);
    try {
      const points = this.points ?? await fetchMap(of);
      if (of !== this.of) return;
      this.points = points;
    } catch (error) {
      $("map-counts").replaceChildren(el("span", { class: "error" }, error.message));
      return;
    }
    this.selected = this.points.map((xy) => Uint8Array.from({ length: xy.length / 2 }, (_, at) =>
      !this.corners.length || inPolygon(this.corners, xy[2 * at], xy[2 * at + 1])));
    $("map-counts").replaceChildren(...[[REAL, "real", "s0"], [of, "generated", "s1"]].map(([source, name, colour], kind) => el("a", {
      href: this.hrefOf(source, this.region), "aria-current": source === this.source ? "true" : null,
    }, el("i", { class: colour }), `${formatCount(this.selected[kind].reduce((sum, one) => sum + one, 0))} ${name}`)));
    if (this.view) this.render();
    else this.resize();
  }

  select(corners) {
    location.hash = this.hrefOf(this.source, corners.map((value) => Number(value.toPrecision(5))).join("_") || "all");
  }

  selectVisible() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.view) this.select([[0, 0], [width, 0], [width, height], [0, height]].flatMap((pixel) => this.toMap(pixel)));
  }

  selectAll() {
    this.view = null;
    this.resize();
    this.select([]);
  }

  // The map coordinates of a pixel. A view is the scale (pixels per unit) and the pixel of the origin.
  toMap([left, top]) { return [(left - this.view.left) / this.view.scale, (this.view.top - top) / this.view.scale]; }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height || !this.points) return;
    for (const canvas of [this.canvas, this.offscreen]) {
      Object.assign(canvas, { width: width * devicePixelRatio, height: height * devicePixelRatio });
    }
    if (!this.view) {
      const low = [Infinity, Infinity];
      const high = [-Infinity, -Infinity];
      for (const xy of this.points) xy.forEach((value, at) => {
        low[at % 2] = Math.min(low[at % 2], value);
        high[at % 2] = Math.max(high[at % 2], value);
      });
      const fit = (size, axis) => (size - 2 * MARGIN_PX) / (high[axis] - low[axis] || 1);
      const scale = Math.min(fit(width, 0), fit(height, 1));
      const centre = (axis) => scale * (low[axis] + high[axis]) / 2;
      this.view = { scale, left: width / 2 - centre(0), top: height / 2 + centre(1) };
    }
    this.render();
  }

  render() {
    if (!this.view || !this.selected) return;
    const context = this.offscreen.getContext("2d");
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.offscreen.width, this.offscreen.height);
    const { scale, left, top } = this.view;
    const all = (this.points[0].length + this.points[1].length) / 2;
    const spacing = Math.sqrt((this.canvas.clientWidth * this.canvas.clientHeight) / all);
    const side = Math.min(Math.max(POINT_PX[0], spacing / 4), POINT_PX[1]);
    for (const selected of [0, 1]) {
      context.globalAlpha = selected ? 0.75 : 0.2;
      this.points.forEach((xy, kind) => {
        context.fillStyle = getComputedStyle($("map-counts").children[kind].firstChild).backgroundColor;
        for (let at = 0; at < xy.length; at += 2) {
          if (this.selected[kind][at / 2] !== selected) continue;
          context.fillRect(left + scale * xy[at] - side / 2, top - scale * xy[at + 1] - side / 2, side, side);
        }
      });
    }
    this.rendered = { ...this.view };
    this.draw();
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const factor = this.view.scale / this.rendered.scale;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.offscreen, this.view.left - this.rendered.left * factor, this.view.top - this.rendered.top * factor,
      this.canvas.clientWidth * factor, this.canvas.clientHeight * factor);
    const corners = this.drawn ?? this.corners;
    if (!corners.length) return;
    context.beginPath();
    for (let at = 0; at < corners.length; at += 2) {
      context.lineTo(this.view.left + this.view.scale * corners[at], this.view.top - this.view.scale * corners[at + 1]);
    }
    context.closePath();
    context.strokeStyle = getComputedStyle(this.canvas).color;
    context.lineWidth = 1.5;
    context.stroke();
  }

  // Zoom around a pixel and pan; renders the points again when the view settles.
  zoom(factor, left = this.canvas.clientWidth / 2, top = this.canvas.clientHeight / 2, right = 0, down = 0) {
    if (!this.rendered) return;
    const { view } = this;
    view.left = left + (view.left - left) * factor + right;
    view.top = top + (view.top - top) * factor + down;
    view.scale *= factor;
    this.draw();
    clearTimeout(this.settleTimer);
    this.settleTimer = setTimeout(() => this.render(), SETTLE_MS);
  }

  // One pointer draws a region; with Shift, or with a second pointer, it pans and zooms.
  pointerdown(event) {
    if (!this.rendered || event.button > 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.drawn = this.pointers.size === 1 && !event.shiftKey ? this.toMap([event.offsetX, event.offsetY]) : undefined;
    this.draw();
  }

  pointermove(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.offsetX, event.offsetY];
    this.pointers.set(event.pointerId, now);
    if (this.drawn) {
      this.drawn.push(...this.toMap(now));
      this.draw();
      return;
    }
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    const distance = (pixel) => Math.max(1, Math.hypot(pixel[0] - other[0], pixel[1] - other[1]));
    if (other) this.zoom(distance(now) / distance(before), ...other);
    else this.zoom(1, 0, 0, now[0] - before[0], now[1] - before[1]);
  }

  pointerup(event) {
    this.pointers.delete(event.pointerId);
    const corners = this.drawn;
    this.drawn = undefined;
    if (this.rendered) this.draw();
    if (!corners || event.type === "pointercancel") return;
    const every = Math.ceil(corners.length / 2 / MAX_CORNERS);
    this.select(corners.length < 6 ? [] : corners.filter((_, at) => Math.floor(at / 2) % every === 0)); // a click selects all
  }

  key(event) {
    const step = this.canvas.clientHeight / 8;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) this.zoom(1, 0, 0, ...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else if (event.key === "Enter") this.selectVisible();
    else if (event.key === "Escape") this.selectAll();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
