// The live picture: 8 bit as it comes, coloured here. 255 is a saturated pixel; what is on top of it is drawn on a
// second canvas, in pixels of the frame.
import { count, duration, el, put } from "./format.js";
import * as graphs from "./graphs.js";
import * as link from "./link.js";
import { entry, present } from "./moment.js";
import { toast } from "./toasts.js";

const ANCHORS = {
  grey: [[0, 0, 0], [255, 255, 255]],
  viridis: [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]],
  inferno: [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]],
  ice: [[4, 6, 19], [42, 60, 130], [52, 131, 176], [128, 198, 214], [234, 252, 253]],
};
const SATURATED = 0xff2020ff;
const DARK = 0.02;
const OLD_MS = 2000;
const view = { stream: null, low: null, high: null, region: null, line: null };
const shown = { map: "inferno", overlay: true, tool: "look", paused: false, hidden: false, rectangle: null };
export const figures = { images: 0, ages: [] };
let box, image, over, histogram, profile, facts, silence, readout, operator = false, drag = null, last = null, table = null, data = null, marks = [];
const inputs = {};

export function build(container) {
  box = container;
  image = el("canvas", { class: "image", id: "image", role: "img", "aria-label": "The camera's newest picture" });
  over = el("canvas", { class: "over", "aria-label": "Draw a region or a line" });
  silence = el("div", { class: "waiting" });
  readout = el("div", { class: "readout", hidden: true });
  histogram = el("canvas", { role: "img", "aria-label": "Histogram", title: "How many pixels have which brightness (logarithmic)" });
  profile = el("canvas", { role: "img", "aria-label": "Line profile", title: "Counts along the line", hidden: true });
  facts = el("div", { class: "facts" });
  inputs.stream = el("select", { "aria-label": "Camera", onchange: () => choose(inputs.stream.value) });
  inputs.map = el("select", { "aria-label": "Colours", onchange: () => { shown.map = inputs.map.value; colours(); } }, Object.keys(ANCHORS).map((n) => el("option", { selected: n === shown.map }, n)));
  inputs.overlay = el("input", { type: "checkbox", checked: true, onchange: () => { shown.overlay = inputs.overlay.checked; colours(); } });
  inputs.auto = el("input", { type: "checkbox", checked: true, onchange: contrast });
  inputs.low = el("input", { type: "number", style: "width:88px", disabled: true, "aria-label": "Darkest count", onchange: contrast });
  inputs.high = el("input", { type: "number", style: "width:88px", disabled: true, "aria-label": "Brightest count", onchange: contrast });
  inputs.pause = el("button", { onclick: () => { shown.paused = !shown.paused; put(inputs.pause, shown.paused ? "Go on" : "Pause"); ask(); } }, "Pause");
  inputs.hint = el("small", { hidden: true });
  const tools = ["look", "region", "line"].map((name) => el("button", { data: { tool: name }, class: name === "look" ? "on" : "", "aria-pressed": String(name === "look"), onclick: () => tool(name) }, name[0].toUpperCase() + name.slice(1)));
  inputs.zoom = el("button", { hidden: true, onclick: zoom }, "Zoom in");
  inputs.sensor = el("button", { hidden: true, onclick: toSensor, title: "Have the camera read this region alone" }, "Set on camera");
  inputs.whole = el("button", { hidden: true, onclick: whole }, "Whole frame");
  box.replaceChildren(
    el("div", { class: "head" }, el("h2", {}, "Camera"), inputs.stream, el("div", { class: "row", role: "group", "aria-label": "Tool on the picture" }, tools), inputs.pause, el("a", { id: "raw", class: "button", title: "The next frame as it is, for numpy", href: "#" }, ".npy")),
    el("div", { class: "row drawn" }, inputs.hint, inputs.zoom, inputs.sensor, inputs.whole), el("div", { class: "camera" }, el("div", { class: "stage" }, image, over, readout, silence),
      el("div", { class: "side" }, el("label", {}, "Colours", inputs.map), el("label", {}, "Mark saturated", inputs.overlay), el("label", {}, "Contrast by itself", inputs.auto),
        el("label", {}, inputs.low, "to", inputs.high), histogram, profile, facts)));
  over.addEventListener("pointerdown", down);
  over.addEventListener("pointermove", move);
  over.addEventListener("pointerup", up);
  over.addEventListener("pointercancel", () => { drag = null; });
  over.addEventListener("pointerleave", () => { readout.hidden = true; });
  new ResizeObserver(place).observe(image);
  link.on("image", take);
  link.on("close", () => { marks = []; });
  setInterval(tell, 500);
  colours();
}

/** Who looks: only an operator may start a stream from here. */
export function greet(isOperator) {
  operator = isOperator;
}

export function offer(channels) {
  const names = channels.filter((c) => c.kind === "image").map((c) => `${c.instrument}.${c.channel}`);
  box.hidden = names.length === 0;
  if ([...inputs.stream.options].map((o) => o.value).join() === names.join()) return;
  inputs.stream.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  inputs.stream.hidden = names.length < 2;
  if (!names.includes(view.stream)) choose(names[0] ?? null);
}

function choose(stream) {
  if (view.stream) link.leaveImage(view.stream);
  Object.assign(view, { stream, region: null, line: null });
  last = null;
  marks = [];
  image.getContext("2d").clearRect(0, 0, image.width, image.height);
  document.getElementById("raw").href = `/api/streams/${encodeURIComponent(stream)}/frame`;
  document.getElementById("raw").download = `${stream}.npy`;
  ask();
}

/** A picture that nobody sees is not asked for. */
export function inSight(is) {
  shown.hidden = !is;
  ask();
}

function ask() {
  if (!view.stream) return;
  if (shown.paused || shown.hidden) link.leaveImage(view.stream);
  else link.watchImage({ ...view });
}

function colours() {
  const anchors = ANCHORS[shown.map];
  table = new Uint32Array(256);
  for (let i = 0; i < 256; i += 1) {
    const at = (i / 254) * (anchors.length - 1);
    const k = Math.min(anchors.length - 2, Math.floor(at));
    const [r, g, b] = [0, 1, 2].map((c) => Math.max(0, Math.min(255, anchors[k][c] + (anchors[k + 1][c] - anchors[k][c]) * (at - k))));
    table[i] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  table[255] = shown.overlay ? SATURATED : table[254];
  if (last) paint(last);
}

function take(stream, read, credit) {
  if (stream !== view.stream || shown.paused) return credit();
  const one = (name) => read.getChild(name).get(0);
  const frame = { pixels: one("pixels"), histogram: one("histogram"), line: one("line") };
  for (const name of ["t_ms", "sequence", "number", "frame_width", "frame_height", "x", "y", "step", "width", "height", "low", "high", "full", "saturated", "darkest", "brightest"]) frame[name] = one(name);
  if (document.hidden) return credit();
  requestAnimationFrame(() => {
    paint(frame);
    figures.images += 1;
    figures.ages.push(performance.timeOrigin + performance.now() - frame.t_ms);
    if (figures.ages.length > 600) figures.ages.splice(0, 300);
    marks.push([performance.now(), frame.sequence, frame.number]);
    if (marks.length > 60) marks.shift();
    credit();
  });
}

function paint(frame) {
  last = frame;
  if (image.width !== frame.width || image.height !== frame.height || !data) {
    image.width = frame.width;
    image.height = frame.height;
    image.style.setProperty("--ratio", frame.width / frame.height);
    data = image.getContext("2d").createImageData(frame.width, frame.height);
    place();
  }
  const into = new Uint32Array(data.data.buffer);
  const from = frame.pixels;
  for (let i = 0; i < from.length; i += 1) into[i] = table[from[i]];
  image.getContext("2d").putImageData(data, 0, 0);
}

function tell() {
  if (box.hidden || box.closest("[hidden]")) return;
  const still_ms = marks.length ? performance.now() - marks.at(-1)[0] : Infinity;
  const old = still_ms > OLD_MS;
  explain(old, still_ms);
  if (!last) return;
  const span = marks.length > 1 ? (marks.at(-1)[0] - marks[0][0]) / 1000 : 0;
  const skipped = marks.length > 1 ? marks.at(-1)[1] - marks[0][1] - (marks.length - 1) : 0;
  const lost = entry(view.stream.split(".")[0], "frames_lost");
  const part = (100 * last.saturated) / (last.width * last.height * last.step ** 2);
  const dark = Number.isFinite(last.full) && last.brightest - last.darkest < DARK * last.full && last.brightest < 0.25 * last.full;
  const rows = [
    ["Frame", `${last.frame_width} × ${last.frame_height}`], ["Number", count(last.number)],
    ["Shown", old || !span ? "no stream" : `${((marks.length - 1) / span).toFixed(1)} / s`], ["Age", old || !figures.ages.length ? "–" : `${figures.ages.at(-1).toFixed(0)} ms`],
    ["Saturated", last.saturated > 0 ? `${count(last.saturated)} px, ${part < 0.1 ? "< 0.1" : part.toFixed(1)} %` : "none", last.saturated > 0], ["Not shown here", skipped > 0 ? count(skipped) : "0"], ["Lost by the camera", lost ? count(lost.value) : "–", lost?.value > 0],
    ["Contrast", `${last.low.toFixed(0)} – ${last.high.toFixed(0)}`], ["Full scale", Number.isFinite(last.full) ? count(last.full) : "–"],
  ];
  facts.replaceChildren(...rows.flatMap(([name, text, hot]) => [el("span", {}, name), el("b", { class: hot ? "hot" : "" }, text)]),
    ...(dark ? [el("span", { class: "whole" }, "All pixels are about as dark: is the shutter open, the exposure long enough?")] : []));
  if (inputs.auto.checked) {
    inputs.low.value = last.low.toFixed(0);
    inputs.high.value = last.high.toFixed(0);
  }
  graphs.histogram(histogram, last);
  profile.hidden = !view.line;
  if (view.line) graphs.profile(profile, Array.from(last.line), Math.hypot(view.line[2] - view.line[0], view.line[3] - view.line[1]));
}

/** Why there is no picture, or none that is new, and what to do about it. */
function explain(old, still_ms) {
  const id = view.stream?.split(".")[0];
  const one = present()?.instruments[id];
  const streams = entry(id, "streaming")?.value === true || one?.state === "acquiring";
  const words = !old || !one ? "" : shown.paused ? "Paused" : !streams ? `${id} is not streaming${one.state === "ready" ? "" : ` (${one.state})`}`
    : last ? `No frame for ${duration(still_ms / 1000)}` : "Waiting for the first frame …";
  const offered = old && one && !shown.paused && !streams && operator;
  silence.classList.toggle("over", Boolean(last));
  silence.hidden = !words;
  if (silence.dataset.words === `${words} ${offered}`) return;
  silence.dataset.words = `${words} ${offered}`;
  silence.replaceChildren(el("span", {}, words), offered ? el("button", { class: "main", onclick: () => start(id) }, "Start") : "");
}

function start(id) {
  link.act("command", id, { kind: "start" }).catch((error) => toast(`${id}: not started`, error.message, "bad"));
}

function contrast() {
  const auto = inputs.auto.checked;
  inputs.low.disabled = inputs.high.disabled = auto;
  view.low = auto || inputs.low.value === "" ? null : Number(inputs.low.value);
  view.high = auto || inputs.high.value === "" ? null : Number(inputs.high.value);
  ask();
}

function tool(name) {
  shown.tool = name;
  box.querySelectorAll("[data-tool]").forEach((b) => { b.classList.toggle("on", b.dataset.tool === name); b.setAttribute("aria-pressed", String(b.dataset.tool === name)); });
  over.classList.toggle("draws", name !== "look");
  inputs.hint.hidden = name === "look";
  put(inputs.hint, name === "region" ? "Draw a rectangle on the picture, with a finger or the mouse." : "Draw a line on the picture; its profile is beside it.");
  if (name === "look") {
    shown.rectangle = null;
    view.line = null;
    ask();
  }
  offers();
}

function place() {
  Object.assign(over.style, { left: `${image.offsetLeft}px`, top: `${image.offsetTop}px`, width: `${image.clientWidth}px`, height: `${image.clientHeight}px` });
  over.width = image.clientWidth * devicePixelRatio;
  over.height = image.clientHeight * devicePixelRatio;
  sketch();
}

const toFrame = (event) => {
  const at = over.getBoundingClientRect();
  return [last.x + ((event.clientX - at.left) / at.width) * last.width * last.step, last.y + ((event.clientY - at.top) / at.height) * last.height * last.step];
};
const toCanvas = ([x, y]) => [((x - last.x) / (last.width * last.step)) * over.width, ((y - last.y) / (last.height * last.step)) * over.height];

function down(event) {
  if (!last) return;
  if (shown.tool === "look") return move(event);
  over.setPointerCapture(event.pointerId);
  drag = toFrame(event);
}

function move(event) {
  if (!last) return;
  const [x, y] = toFrame(event);
  const place_ = Math.floor((y - last.y) / last.step) * last.width + Math.floor((x - last.x) / last.step);
  const value = last.pixels[place_];
  const counts = value === 255 ? "saturated" : `${value === 254 ? "≥" : value ? "≈" : "≤"} ${(last.low + (value / 254) * (last.high - last.low)).toFixed(0)} counts`;
  readout.hidden = value === undefined;
  put(readout, `${Math.floor(x)}, ${Math.floor(y)} px: ${counts}`);
  if (!drag) return;
  if (shown.tool === "region") shown.rectangle = [Math.min(drag[0], x), Math.min(drag[1], y), Math.abs(x - drag[0]), Math.abs(y - drag[1])].map(Math.round);
  else view.line = [...drag, x, y];
  sketch();
}

function up() {
  if (drag && shown.tool === "line") ask();
  drag = null;
  offers();
}

function sketch() {
  const pen = over.getContext("2d");
  pen.clearRect(0, 0, over.width, over.height);
  pen.lineWidth = 2 * devicePixelRatio;
  pen.strokeStyle = "#5fd0e2";
  pen.fillStyle = "#5fd0e2";
  if (last && shown.rectangle) {
    const [x, y] = toCanvas(shown.rectangle);
    const [right, bottom] = toCanvas([shown.rectangle[0] + shown.rectangle[2], shown.rectangle[1] + shown.rectangle[3]]);
    pen.strokeRect(x, y, right - x, bottom - y);
  }
  if (last && view.line) {
    pen.beginPath();
    pen.moveTo(...toCanvas(view.line.slice(0, 2)));
    pen.lineTo(...toCanvas(view.line.slice(2)));
    pen.stroke();
    for (const end of [view.line.slice(0, 2), view.line.slice(2)]) {
      pen.beginPath();
      pen.arc(...toCanvas(end), 4 * devicePixelRatio, 0, 7);
      pen.fill();
    }
  }
}

function offers() {
  const usable = shown.rectangle && shown.rectangle[2] > 3 && shown.rectangle[3] > 3;
  inputs.zoom.hidden = inputs.sensor.hidden = !usable;
  inputs.whole.hidden = !view.region;
  sketch();
}

function zoom() {
  view.region = shown.rectangle;
  shown.rectangle = null;
  ask();
  offers();
}

function whole() {
  view.region = null;
  ask();
  offers();
}

async function toSensor() {
  const [instrument] = view.stream.split(".");
  const roi = entry(instrument, "roi")?.value;
  const [across, deep] = entry(instrument, "binning")?.value ?? [1, 1];
  const [x, y, width, height] = shown.rectangle;
  const wanted = [Math.round((roi?.x ?? 0) + x * across), Math.round((roi?.y ?? 0) + y * deep), Math.round(width * across), Math.round(height * deep)];
  try {
    await link.act("command", instrument, { kind: "set", name: "roi", value: wanted });
    shown.rectangle = null;
    view.region = null;
    ask();
    offers();
  } catch (error) {
    toast(`${instrument}: region not set`, error.message, "bad");
  }
}
