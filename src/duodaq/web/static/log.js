// The lab's log as it goes, filtered by level and words.
import { clock, el } from "./format.js";
import * as link from "./link.js";

const MOST = 1500;
const LEVELS = ["info", "warning", "error"];
const lines = [];
let list, level, words, box;

export function build(container) {
  box = container;
  level = el("select", { "aria-label": "Least level", onchange: draw }, LEVELS.map((l) => el("option", { value: l }, l === "info" ? "everything" : `${l}s and worse`)));
  words = el("input", { type: "search", placeholder: "only lines with …", "aria-label": "Only lines with", oninput: draw });
  list = el("div", { class: "log", tabIndex: 0 });
  box.replaceChildren(el("article", { class: "card" }, el("div", { class: "head" }, el("h2", {}, "Log"), level, words), list));
  link.on("log", take);
}

function take(message) {
  const known = lines.at(-1)?.number ?? 0;
  const first = message.lines[0]?.number ?? 0;
  if (first === 1 && known > message.lines.at(-1).number) lines.length = 0; // another server
  lines.push(...message.lines.filter((l) => l.number > (lines.at(-1)?.number ?? 0)));
  if (lines.length > MOST) lines.splice(0, lines.length - MOST);
  if (!box.hidden) draw();
}

export function draw() {
  const least = LEVELS.indexOf(level.value);
  const wanted = words.value.toLowerCase();
  const rank = (l) => (l === "critical" ? 2 : Math.max(0, LEVELS.indexOf(l)));
  const shown = lines.filter((l) => rank(l.level) >= least && (!wanted || text(l).toLowerCase().includes(wanted))).slice(-400);
  const atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 30;
  list.replaceChildren(...(shown.length ? shown.map(row) : [el("div", { class: "empty" }, "No such lines.")]));
  if (atEnd) list.scrollTop = list.scrollHeight;
}

const known = (line) => Object.entries(line.facts).filter(([name, value]) => value && !["trace_id"].includes(name)).map(([name, value]) => `${name}=${value}`).join(" ");
const text = (line) => `${line.event} ${line.logger} ${known(line)}`;
const row = (line) => el("div", { class: line.level, title: line.facts.trace_id ? `trace ${line.facts.trace_id}` : "" }, el("time", {}, clock(line.t_ms, true)), el("b", {}, line.level), el("p", {}, line.event, " ", el("i", {}, known(line))));
