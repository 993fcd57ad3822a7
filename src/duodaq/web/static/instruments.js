// Every instrument at a glance: its state, where it runs, its last values. A click opens its panel.
import { clock, el, mood, named, put, said } from "./format.js";

const cards = new Map();
let open = () => {};

export function build(container, instruments, onOpen) {
  open = onOpen;
  cards.clear();
  container.replaceChildren(...instruments.map(card));
}

function card(facts) {
  const parts = {
    dot: el("span", { class: "dot" }), state: el("small", {}), driver: el("div", { class: "driver" }),
    values: el("div", { class: "values" }), cause: el("div", { class: "cause", hidden: true }), rows: new Map(), facts,
  };
  parts.box = el("button", { class: "instrument", data: { instrument: facts.id }, onclick: () => open(facts.id) },
    el("div", { class: "name" }, parts.dot, facts.id, parts.state, el("span", { class: `chip ${facts.runtime}` }, facts.runtime.toUpperCase())),
    parts.driver, parts.values, parts.cause);
  cards.set(facts.id, parts);
  return parts.box;
}

export function mark(id) {
  for (const [name, parts] of cards) parts.box.classList.toggle("open", name === id);
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
}

/** What moves: five times a second. */
export function moved(now, ringing) {
  for (const [id, parts] of cards) {
    const { state, message } = now.instruments[id] ?? { state: "gone", message: "" };
    parts.dot.className = `dot ${mood(state)}`;
    put(parts.state, state);
    parts.cause.hidden = !message;
    put(parts.cause, message);
  }
  for (const [id, parts] of cards) for (const [name, row] of parts.rows) row.box.classList.toggle("alarmed", ringing.has(`${id}.${name}`));
  const seen = new Set();
  for (const [stream, [t_ms, value, unit]] of Object.entries(now.values)) {
    const [id, ...rest] = stream.split(".");
    const channel = rest.join(".");
    if (channel.endsWith(".velocity")) continue;
    seen.add(stream);
    show(id, channel, said(value, unit), false, `at ${clock(t_ms, true)}`);
  }
  for (const entry of now.parameters) {
    if (!/position$|wavelength_nm$|^shutter$|^armed$|^exposure_s$|^power/.test(entry.name) || seen.has(`${entry.instrument}.${entry.name}`)) continue;
    show(entry.instrument, entry.name, said(entry.value, entry.unit), entry.stale, `at ${clock(entry.t_ns / 1e6, true)}`);
  }
}

function show(id, name, text, stale, title) {
  const parts = cards.get(id);
  if (!parts) return;
  let row = parts.rows.get(name);
  if (!row) {
    row = { value: el("b", {}), box: null };
    row.box = el("div", { class: "value", data: { channel: name } }, el("span", {}, named(name)), row.value);
    parts.rows.set(name, row);
    parts.values.append(row.box);
  }
  put(row.value, text);
  row.box.title = title;
  row.box.classList.toggle("stale", Boolean(stale));
}
