// The map: real and generated images as points in the plane of their features. All are painted once; while the viewer zooms and
// moves that painting is, and once that rests it is painted anew.

import { askMap } from "./api.js";
import { $, count, el } from "./dom.js";

export const REAL = "real/train";
const MOST_CORNERS = 96; // of a part, so that it fits into an address
const POINT_PX = [1.5, 4.5]; // the more of them in the same room, the smaller
const MARGIN_PX = 14;
const SETTLE_MS = 120;

// Whether a point lies in a polygon x, y, x, y, …; as `inside` in map.py.
function inside(corners, x, y) {
  let found = false;
  for (let at = 0; at < corners.length; at += 2) {
    const next = (at + 2) % corners.length;
    const [x0, y0, x1, y1] = [corners[at], corners[at + 1], corners[next], corners[next + 1]];
    if ((y0 > y) !== (y1 > y) && x < x0 + (y - y0) * ((x1 - x0) / (y1 - y0))) found = !found;
  }
  return found;
}

export class ImageMap {
  // `hrefOf(source, part)`: the address of the chosen images; a part is "all", or its corners "x_y_x_y_…".
  constructor(element, { hrefOf }) {
    Object.assign(this, { element, hrefOf });
    this.canvas = element.querySelector("canvas");
    this.painting = document.createElement("canvas");
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
    $("in-sight").addEventListener("click", () => this.chooseInSight());
    $("whole-map").addEventListener("click", () => this.whole());
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    new MutationObserver(() => this.paint()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  // Shows which images of a source are chosen, on the map `of` a source of generated images.
  async show(source, part, of) {
    if (of !== this.of) Object.assign(this, { points: null, view: null, painted: null });
    Object.assign(this, { source, part, of });
    this.corners = part === "all" ? [] : part.split("_").map(Number);
    try {
      const points = this.points ?? await askMap(of);
      if (of !== this.of) return;
      this.points = points;
    } catch (error) {
      $("map-counts").replaceChildren(el("span", { class: "problem" }, error.message));
      return;
    }
    this.chosen = this.points.map((xy) => Uint8Array.from({ length: xy.length / 2 }, (_, at) =>
      !this.corners.length || inside(this.corners, xy[2 * at], xy[2 * at + 1])));
    $("map-counts").replaceChildren(...[[REAL, "real", "s0"], [of, "generated", "s1"]].map(([source, name, colour], kind) => el("a", {
      href: this.hrefOf(source, this.part), "aria-current": source === this.source ? "true" : null,
    }, el("i", { class: colour }), `${count(this.chosen[kind].reduce((sum, one) => sum + one, 0))} ${name}`)));
    if (this.view) this.paint();
    else this.resize();
  }

  choose(corners) {
    location.hash = this.hrefOf(this.source, corners.map((value) => Number(value.toPrecision(5))).join("_") || "all");
  }

  chooseInSight() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.view) this.choose([[0, 0], [width, 0], [width, height], [0, height]].flatMap((at) => this.place(at)));
  }

  whole() {
    this.view = null;
    this.resize();
    this.choose([]);
  }

  // Where a pixel of the canvas lies on the map. A view is pixels for one unit, and the pixel of the origin.
  place([left, top]) { return [(left - this.view.left) / this.view.scale, (this.view.top - top) / this.view.scale]; }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height || !this.points) return;
    for (const canvas of [this.canvas, this.painting]) {
      Object.assign(canvas, { width: width * devicePixelRatio, height: height * devicePixelRatio });
    }
    if (!this.view) {
      const low = [Infinity, Infinity];
      const high = [-Infinity, -Infinity];
      for (const xy of this.points) xy.forEach((value, at) => {
        low[at % 2] = Math.min(low[at % 2], value);
        high[at % 2] = Math.max(high[at % 2], value);
      });
      const room = (size, axis) => (size - 2 * MARGIN_PX) / (high[axis] - low[axis] || 1);
      const scale = Math.min(room(width, 0), room(height, 1));
      const middle = (axis) => scale * (low[axis] + high[axis]) / 2;
      this.view = { scale, left: width / 2 - middle(0), top: height / 2 + middle(1) };
    }
    this.paint();
  }

  paint() {
    if (!this.view || !this.chosen) return;
    const context = this.painting.getContext("2d");
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.painting.width, this.painting.height);
    const { scale, left, top } = this.view;
    const all = (this.points[0].length + this.points[1].length) / 2;
    const room = Math.sqrt((this.canvas.clientWidth * this.canvas.clientHeight) / all);
    const side = Math.min(Math.max(POINT_PX[0], room / 4), POINT_PX[1]);
    for (const wanted of [0, 1]) {
      context.globalAlpha = wanted ? 0.75 : 0.2;
      this.points.forEach((xy, kind) => {
        context.fillStyle = getComputedStyle($("map-counts").children[kind].firstChild).backgroundColor;
        for (let at = 0; at < xy.length; at += 2) {
          if (this.chosen[kind][at / 2] !== wanted) continue;
          context.fillRect(left + scale * xy[at] - side / 2, top - scale * xy[at + 1] - side / 2, side, side);
        }
      });
    }
    this.painted = { ...this.view };
    this.draw();
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const by = this.view.scale / this.painted.scale;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.painting, this.view.left - this.painted.left * by, this.view.top - this.painted.top * by,
      this.canvas.clientWidth * by, this.canvas.clientHeight * by);
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

  // To another view; the painting follows when that rests.
  zoom(by, left = this.canvas.clientWidth / 2, top = this.canvas.clientHeight / 2, right = 0, down = 0) {
    if (!this.painted) return;
    const { view } = this;
    view.left = left + (view.left - left) * by + right;
    view.top = top + (view.top - top) * by + down;
    view.scale *= by;
    this.draw();
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.paint(), SETTLE_MS);
  }

  // One pointer draws around points; with Shift, or as one of two, it moves the map.
  pointerdown(event) {
    if (!this.painted || event.button > 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.drawn = this.pointers.size === 1 && !event.shiftKey ? this.place([event.offsetX, event.offsetY]) : undefined;
    this.draw();
  }

  pointermove(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.offsetX, event.offsetY];
    this.pointers.set(event.pointerId, now);
    if (this.drawn) {
      this.drawn.push(...this.place(now));
      this.draw();
      return;
    }
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    const apart = (at) => Math.max(1, Math.hypot(at[0] - other[0], at[1] - other[1]));
    if (other) this.zoom(apart(now) / apart(before), ...other);
    else this.zoom(1, 0, 0, now[0] - before[0], now[1] - before[1]);
  }

  pointerup(event) {
    this.pointers.delete(event.pointerId);
    const corners = this.drawn;
    this.drawn = undefined;
    if (this.painted) this.draw();
    if (!corners || event.type === "pointercancel") return;
    const every = Math.ceil(corners.length / 2 / MOST_CORNERS);
    this.choose(corners.length < 6 ? [] : corners.filter((_, at) => Math.floor(at / 2) % every === 0)); // a click chooses all again
  }

  key(event) {
    const step = this.canvas.clientHeight / 8;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) this.zoom(1, 0, 0, ...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else if (event.key === "Enter") this.chooseInSight();
    else if (event.key === "Escape") this.whole();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
