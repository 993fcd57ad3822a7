// Words, numbers and elements: what all views write with.
const PREFIXED = new Set(["V", "A", "W", "Hz", "s", "Ω", "J", "F", "Pa", "T", "m", "g"]);
const PREFIXES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"], [1e-12, "p"]];

/** A unit as people write it. */
export const unitSaid = (unit = "") => unit.replace(/^deg([CF])\b/, "°$1");

/** A number with its unit in parts: what a person reads of it. */
export function quantity(value, unit = "", digits = 5) {
  if (typeof value !== "number") return [plain(value), unitSaid(unit)];
  if (!Number.isFinite(value)) return ["–", unitSaid(unit)];
  if (PREFIXED.has(unit) && value !== 0) {
    const size = Math.abs(value);
    const [scale, prefix] = PREFIXES.find(([least]) => size >= least * 0.99999) ?? PREFIXES.at(-1);
    return [precise(value / scale, digits), prefix + unit];
  }
  return [precise(value, digits), unitSaid(unit)];
}

export function said(value, unit, digits) {
  const [number, shown] = quantity(value, unit, digits);
  return shown ? `${number}\u202f${shown}` : number;
}

/** A number that somebody has set, without the zeros behind it. */
export function neat(value, unit = "") {
  const [number, shown] = quantity(value, unit);
  return shown ? `${Number(number)}\u202f${shown}` : String(Number(number));
}

const TWO = [
  [/(^|[._])(is_)?(open|shutter)$/, "open", "closed"], [/(^|[._])(is_)?armed$/, "armed", "not armed"], [/(^|[._])(is_)?moving$/, "moving", "still"],
  [/(^|[._])(is_)?streaming$/, "streaming", "not streaming"], [/(^|[._])(is_)?(on|enabled|emission|output)$/, "on", "off"],
];

/** Whether a channel or setting says one of two things, by its name. */
export const isTwofold = (name) => TWO.some(([which]) => which.test(name));

/** A value under its name, the same wherever it stands: a shutter is open, and a position has always as many digits. */
export function saidOf(name, value, unit) {
  const two = [true, false, 0, 1].includes(value) && TWO.find(([which]) => which.test(name));
  if (two) return value ? two[1] : two[2];
  if (/(^|\.)position$/.test(name) && Number.isFinite(value) && Math.abs(value) < 1e5) return `${value.toFixed(4)}\u202f${unitSaid(unit)}`;
  return said(value, unit);
}

/** Names as a sentence has them; of very many the first ones. */
export function listed(names, most = 6) {
  if (names.length > most) return `${names.slice(0, most - 1).join(", ")} and ${names.length - most + 1} more`;
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

export function ago(ms) {
  return ms < 1500 ? "just now" : `${duration(ms / 1000).replace(/\.\d /, " ")} ago`;
}

/** What is typed there as a number; NaN of all else: of "1,5" too, of which a field for numbers would make 15. */
export const numberIn = (text) => (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text.trim()) ? Number(text) : NaN);

function precise(value, digits) {
  if (value === 0) return "0";
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-4) return value.toExponential(3);
  return value.toFixed(Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(size)))));
}

export function plain(value) {
  if (value === null || value === undefined) return "–";
  if (value === true) return "yes";
  if (value === false) return "no";
  if (typeof value === "number") return String(Number(value.toPrecision(8)));
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (typeof value === "object") return Object.entries(value).map(([k, v]) => `${k} ${plain(v)}`).join(", ");
  return String(value);
}

/** A value as it stands in a field, from where it may be sent again: with all the 15 digits that a float keeps. */
export function exact(value) {
  if (Array.isArray(value)) return value.map(exact).join(", ");
  return typeof value === "number" ? String(Number(value.toPrecision(15))) : plain(value);
}

/** A parameter's name as a person says it: its unit stands behind the number already. */
export const named = (name) => name.replace(/_(s|ms|us|nm|w|mw|v|hz|k|c)$/i, "").replace(/_+$/, "").replace(/_/g, " ");

export function clock(ms, withMs = false) {
  if (!ms) return "–";
  const moment = new Date(ms);
  const text = moment.toLocaleTimeString([], { hour12: false });
  return withMs ? `${text}.${String(moment.getMilliseconds()).padStart(3, "0")}` : text;
}

export function duration(s) {
  if (s < 60) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

export const count = (n) => Number(n ?? 0).toLocaleString("en").replaceAll(",", "\u202f");

/** An element: properties, `on…` listeners, `class`, `data`, and children, of which false ones are left out. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== false && child !== null && child !== undefined));
  return made;
}

export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const GOOD = new Set(["ready", "open", "running"]);
const BUSY = new Set(["acquiring", "connecting", "starting", "reconnecting"]);
const BAD = new Set(["error", "hung", "failed", "lost"]);
export const mood = (state) => (GOOD.has(state) ? "good" : BUSY.has(state) ? "busy" : BAD.has(state) ? "bad" : state === "degraded" ? "warn" : "");

/** A table of rows; columns are [title, cell(row), "n" | "wide"]. */
export function table(columns, rows) {
  const head = el("tr", {}, columns.map(([title, , kind]) => el("th", { class: kind }, title)));
  const body = rows.map((row) => el("tr", {}, columns.map(([, cell, kind]) => el("td", { class: kind }, cell(row) ?? "–"))));
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, body)));
}
