// Every instrument at a glance: its state, where it runs, its last values. A click opens its panel. Many of them are small
// rows with a search above.
import { ago, clock, el, mood, named, put, saidOf } from "./format.js";
import { labTime, readings } from "./moment.js";

const MANY = 10;
const TOLD = /position$|wavelength_nm$|^shutter$|^armed$|^exposure_s$|^power/;
const cards = new Map();
let open = () => {}, list, search, only, tally, small, tools;

export function build(container, instruments, onOpen) {
  open = onOpen;
  cards.clear();
  const many = instruments.length > MANY;
  search ??= el("input", { type: "search", placeholder: "find …", title: "By name, driver, port, channel or state", "aria-label": "Find instruments", oninput: sift });
  only ??= el("button", { "aria-pressed": "false", title: "Those with an error, an alarm or no connection", onclick: () => press(only) }, "Trouble");
  small ??= el("button", { "aria-pressed": String(many), onclick: () => press(small) }, "Small");
  tally ??= el("small", { role: "status" });
  tools = el("div", { class: "sift", hidden: !many }, search, only, small, tally);
  list = el("div", { class: "cards" }, instruments.map(card));
  container.classList.toggle("many", many);
  container.replaceChildren(tools, list);
  sift();
}

function press(button) {
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  sift();
}

const pressed = (button) => !tools.hidden && button.getAttribute("aria-pressed") === "true";

function sift() {
  list.classList.toggle("small", pressed(small));
  const words = tools.hidden ? [] : search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let seen = 0;
  for (const parts of cards.values()) {
    const text = parts.box.textContent.toLowerCase();
    const shown = words.every((word) => text.includes(word)) && (!pressed(only) || parts.trouble);
    if (parts.box.hidden === shown) parts.box.hidden = !shown;
    seen += shown;
  }
  put(tally, seen === cards.size ? `${seen} instruments` : `${seen} of ${cards.size}`);
}

function card(facts) {
  const parts = {
    dot: el("span", { class: "dot" }), state: el("small", {}), driver: el("div", { class: "driver" }),
    values: el("div", { class: "values" }), cause: el("div", { class: "cause", hidden: true }), rows: new Map(), facts, trouble: false,
  };
  parts.box = el("button", { class: "instrument", data: { instrument: facts.id }, title: `Open the panel of ${facts.id}`, onclick: () => open(facts.id) },
    el("div", { class: "name" }, parts.dot, el("span", { class: "id" }, facts.id), parts.state, el("span", { class: `chip ${facts.runtime}` }, facts.runtime.toUpperCase())),
    parts.driver, parts.values, parts.cause);
  cards.set(facts.id, parts);
  return parts.box;
}

export function mark(id) {
  for (const [name, parts] of cards) {
    parts.box.classList.toggle("open", name === id);
    parts.box.setAttribute("aria-expanded", String(name === id));
  }
}

/** Where each runs and since when: once a second. */
export function placed(statuses) {
  for (const status of statuses) {
    const parts = cards.get(status.id);
    if (!parts) continue;
    const where = status.mode === "inline" ? "inline" : `${status.mode}${status.pid ? ` ${status.pid}` : ""}`;
    put(parts.driver, `${parts.facts.driver.split(":").at(-1)} · ${status.worker} (${where})${status.port ? ` · port ${status.port}` : ""}`);
    parts.driver.title = `${parts.facts.driver}, since ${clock(status.since_ns / 1e6)}${status.restarts ? `, restarted ${status.restarts} times` : ""}`;
  }
  if (list && !tools.hidden) sift();
}

/** What moves: five times a second, and twice where nothing does, since what is silent grows old. */
export function moved(now, ringing) {
  for (const [id, parts] of cards) {
    const { state, message } = now.instruments[id] ?? { state: "gone", message: "" };
    parts.dot.className = `dot ${mood(state)}`;
    const held = now.control?.[id];
    put(parts.state, held ? `${state} · ${held.what || held.name}` : state);
    parts.state.title = held ? `${held.what ? `${held.what} of ` : ""}${held.client} holds control` : "";
    parts.cause.hidden = !message;
    put(parts.cause, message);
    parts.trouble = Boolean(message) || !["good", "busy"].includes(mood(state));
    for (const [name, row] of parts.rows) {
      const rings = ringing.has(`${id}.${name}`);
      row.box.classList.toggle("alarmed", rings);
      parts.trouble ||= rings;
    }
  }
  const told = new Set();
  for (const [id, name, at] of readings()) {
    const sent = `${id}.${name}` in now.values;
    if (name.endsWith(".velocity") || !(sent || TOLD.test(name))) continue;
    told.add(`${id}.${name}`);
    show(id, name, at);
  }
  for (const [id, { rows }] of cards) for (const [name, { box }] of rows) if (!told.has(`${id}.${name}`)) box.remove(), rows.delete(name);
}

function show(id, name, at) {
  const parts = cards.get(id);
  if (!parts) return;
  let row = parts.rows.get(name);
  if (!row) {
    row = { value: el("b", {}), box: null };
    row.box = el("div", { class: "value", data: { channel: name } }, el("span", {}, named(name)), row.value);
    parts.rows.set(name, row);
    parts.values.append(row.box);
  }
  put(row.value, saidOf(name, at.value, at.unit));
  row.box.title = at.stale ? `old: ${ago(labTime() - at.t_ms)}, at ${clock(at.t_ms, true)}` : `at ${clock(at.t_ms, true)}`;
  row.box.classList.toggle("stale", Boolean(at.stale));
}
