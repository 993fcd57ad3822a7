// The live picture: 8 bit as it comes, coloured here. 255 is a saturated pixel; what is on top of it is drawn on a
// second canvas, in pixels of the frame.
import { count, el, put, toast } from "./format.js";
import * as link from "./link.js";

const ANCHORS = {
  grey: [[0, 0, 0], [255, 255, 255]],
  viridis: [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]],
  inferno: [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]],
  ice: [[4, 6, 19], [42, 60, 130], [52, 131, 176], [128, 198, 214], [234, 252, 253]],
};
const SATURATED = 0xff2020ff;
const view = { stream: null, low: null, high: null, region: null, line: null };
const shown = { map: "inferno", overlay: true, tool: "look", paused: false, hidden: false, rectangle: null };
export const figures = { images: 0, ages: [] };
let box, image, over, histogram, profile, facts, drag = null, last = null, table = null, data = null, marks = [], parameters = () => null;
const inputs = {};

export function build(container, parameterOf) {
  box = container;
  parameters = parameterOf;
  image = el("canvas", { class: "image", id: "image" });
  over = el("canvas", { class: "over", "aria-label": "Draw a region or a line" });
  histogram = el("canvas", { title: "How many pixels have which brightness (logarithmic)" });
  profile = el("canvas", { title: "Counts along the line" });
  facts = el("div", { class: "facts" });
  inputs.stream = el("select", { "aria-label": "Camera", onchange: () => choose(inputs.stream.value) });
  inputs.map = el("select", { "aria-label": "Colours", onchange: () => { shown.map = inputs.map.value; colours(); } }, Object.keys(ANCHORS).map((n) => el("option", { selected: n === shown.map }, n)));
  inputs.overlay = el("input", { type: "checkbox", checked: true, onchange: () => { shown.overlay = inputs.overlay.checked; colours(); } });
  inputs.auto = el("input", { type: "checkbox", checked: true, onchange: contrast });
  inputs.low = el("input", { type: "number", style: "width:88px", disabled: true, "aria-label": "Darkest count", onchange: contrast });
  inputs.high = el("input", { type: "number", style: "width:88px", disabled: true, "aria-label": "Brightest count", onchange: contrast });
  inputs.pause = el("button", { onclick: () => { shown.paused = !shown.paused; put(inputs.pause, shown.paused ? "Go on" : "Pause"); ask(); } }, "Pause");
  const tools = ["look", "region", "line"].map((name) => el("button", { data: { tool: name }, class: name === "look" ? "on" : "", onclick: () => tool(name) }, name[0].toUpperCase() + name.slice(1)));
  inputs.zoom = el("button", { hidden: true, onclick: zoom }, "Zoom in");
  inputs.sensor = el("button", { hidden: true, onclick: toSensor, title: "Have the camera read this region alone" }, "Set on camera");
  inputs.whole = el("button", { hidden: true, onclick: whole }, "Whole frame");
  box.replaceChildren(
    el("div", { class: "head" }, el("h2", {}, "Camera"), inputs.stream, el("div", { class: "row" }, tools), inputs.zoom, inputs.sensor, inputs.whole, inputs.pause, el("a", { id: "raw", class: "button", title: "The next frame as it is, for numpy", href: "#" }, ".npy")),
    el("div", { class: "camera" }, el("div", { class: "stage" }, image, over),
      el("div", { class: "side" }, el("label", {}, "Colours", inputs.map), el("label", {}, "Mark saturated", inputs.overlay), el("label", {}, "Contrast by itself", inputs.auto),
        el("label", {}, inputs.low, "to", inputs.high), histogram, profile, facts)));
  over.addEventListener("pointerdown", down);
  over.addEventListener("pointermove", move);
  over.addEventListener("pointerup", up);
  new ResizeObserver(place).observe(image);
  link.on("image", take);
  link.on("close", () => { marks = []; });
  setInterval(tell, 500);
  colours();
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
  if (box.hidden || box.closest("[hidden]") || !last) return;
  const span = marks.length > 1 ? (marks.at(-1)[0] - marks[0][0]) / 1000 : 0;
  const old = !marks.length || performance.now() - marks.at(-1)[0] > 2000;
  const skipped = marks.length > 1 ? marks.at(-1)[1] - marks[0][1] - (marks.length - 1) : 0;
  const lost = parameters(view.stream.split(".")[0], "frames_lost");
  const rows = [
    ["Frame", `${last.frame_width} × ${last.frame_height}`], ["Number", count(last.number)],
    ["Shown", old || !span ? "no stream" : `${((marks.length - 1) / span).toFixed(1)} / s`], ["Age", old || !figures.ages.length ? "–" : `${figures.ages.at(-1).toFixed(0)} ms`],
    ["Saturated", count(last.saturated), last.saturated > 0], ["Not shown here", skipped > 0 ? count(skipped) : "0"], ["Lost by the camera", lost ? count(lost.value) : "–", lost?.value > 0],
    ["Contrast", `${last.low.toFixed(0)} – ${last.high.toFixed(0)}`],
  ];
  facts.replaceChildren(...rows.flatMap(([name, text, hot]) => [el("span", {}, name), el("b", { class: hot ? "hot" : "" }, text)]));
  if (inputs.auto.checked) {
    inputs.low.value = last.low.toFixed(0);
    inputs.high.value = last.high.toFixed(0);
  }
  const style = getComputedStyle(document.documentElement);
  const values = Array.from(last.histogram, (n) => Math.log1p(n));
  graph(histogram, values, style.getPropertyValue("--accent"), true);
  profile.hidden = !view.line;
  if (view.line) graph(profile, Array.from(last.line), style.getPropertyValue("--c1"), false);
}

function graph(canvas, values, colour, filled) {
  const [width, height] = [canvas.clientWidth * devicePixelRatio, canvas.clientHeight * devicePixelRatio];
  canvas.width = width;
  canvas.height = height;
  if (values.length < 2) return;
  const pen = canvas.getContext("2d");
  const low = filled ? 0 : Math.min(...values);
  const high = Math.max(...values, low + 1e-9);
  const y = (v) => height - 4 - ((v - low) / (high - low)) * (height - 10);
  pen.beginPath();
  values.forEach((v, i) => pen.lineTo((i / (values.length - 1)) * width, y(v)));
  pen.strokeStyle = colour;
  pen.lineWidth = 1.5 * devicePixelRatio;
  if (filled) {
    pen.lineTo(width, height);
    pen.lineTo(0, height);
    pen.globalAlpha = 0.35;
    pen.fillStyle = colour;
    pen.fill();
    pen.globalAlpha = 1;
    const across = (counts) => Math.max(1, Math.min(width - 1, ((counts - last.darkest) / (last.brightest - last.darkest + 1)) * width));
    for (const edge of [last.low, last.high]) pen.strokeRect(across(edge), 0, 0.5, height);
    label(pen, last.darkest.toFixed(0), 4, height - 5, "left");
    label(pen, last.brightest.toFixed(0), width - 4, height - 5, "right");
    return;
  }
  pen.stroke();
  label(pen, high.toFixed(0), 4, 12 * devicePixelRatio, "left");
  label(pen, low.toFixed(0), 4, height - 5, "left");
}

function label(pen, text, x, y, align) {
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  pen.font = `${10 * devicePixelRatio}px system-ui`;
  pen.textAlign = align;
  pen.fillText(text, x, y);
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
  box.querySelectorAll("[data-tool]").forEach((b) => b.classList.toggle("on", b.dataset.tool === name));
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
  if (!last || shown.tool === "look") return;
  over.setPointerCapture(event.pointerId);
  drag = toFrame(event);
}

function move(event) {
  if (!last) return;
  const [x, y] = toFrame(event);
  const place_ = Math.floor((y - last.y) / last.step) * last.width + Math.floor((x - last.x) / last.step);
  const value = last.pixels[place_];
  over.title = value === undefined ? "" : `${Math.floor(x)}, ${Math.floor(y)}: ${value === 255 ? "saturated" : `about ${(last.low + (value / 254) * (last.high - last.low)).toFixed(0)} counts`}`;
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
  pen.lineWidth = 1.5 * devicePixelRatio;
  pen.strokeStyle = "#5fd0e2";
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
  const roi = parameters(instrument, "roi")?.value;
  const [across, deep] = parameters(instrument, "binning")?.value ?? [1, 1];
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
