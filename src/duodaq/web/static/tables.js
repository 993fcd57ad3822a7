// Ports, workers and ledgers: the plumbing, once a second.
import { clock, count, duration, el, mood, table } from "./format.js";

const dotted = (state) => el("span", { class: "chip" }, el("span", { class: `dot ${mood(state)}` }), state);
const card = (title, line, content) => el("article", { class: "card" }, el("div", { class: "head" }, el("h2", {}, title), line ? el("small", {}, line) : false), content);

export function show(container, lab) {
  if (container.hidden || container.matches(":hover") && window.getSelection()?.toString()) return;
  container.className = "view stack";
  container.replaceChildren(
    card("Ports", "who holds each line, and who waits for it", table([
      ["port", (p) => el("b", {}, p.name)], ["state", (p) => dotted(p.state)], ["holder", (p) => (p.holder ? `${p.holder} (${duration(p.held_s)})` : "–")],
      ["waiting", (p) => (p.waiting.length ? p.waiting.join(", ") : "–")], ["exchanges", (p) => count(p.exchanges), "n"], ["wait, p99", (p) => `${(p.wait_p99_s * 1000).toFixed(1)} ms`, "n"],
      ["mended", (p) => count(p.resyncs), "n"], ["errors", (p) => count(p.errors), "n"], ["last error", (p) => (p.last_error ? `${clock(p.last_error_ns / 1e6)} ${p.last_error}` : "–"), "wide"], ["address", (p) => p.address, "wide"],
    ], lab.ports)),
    card("Workers", `${lab.commands_in_hand} commands in hand · running for ${duration(lab.uptime_s)} · process ${lab.pid}`, table([
      ["worker", (w) => el("b", {}, w.name)], ["runtime", (w) => el("span", { class: `chip ${w.runtime}` }, w.runtime.toUpperCase())], ["mode", (w) => w.mode], ["process", (w) => w.pid ?? "–", "n"], ["status", (w) => dotted(w.status)], ["instruments", (w) => w.instruments.join(", "), "wide"],
    ], lab.workers)),
    card("Ledgers", "produced = delivered + dropped + in flight", el("div", { class: "stack" }, Object.entries(lab.ledgers).map(([side, books]) => ledger(side, books)))));
}

function ledger(side, books) {
  const rows = books.rows.filter((r) => r.offered);
  const drops = (row) => Object.entries(row.dropped).map(([why, n]) => `${count(n)} ${why}`).join(", ") || "0";
  return el("div", {}, el("div", { class: "row" }, el("b", {}, side.toUpperCase()), el("span", { class: "chip" }, el("span", { class: `dot ${books.balanced ? "good" : "bad"}` }), books.balanced ? "balanced" : "does not balance")),
    rows.length ? table([["stream", (r) => r.stream], ["reader", (r) => r.subscriber], ["produced", (r) => count(r.offered), "n"], ["delivered", (r) => count(r.delivered), "n"], ["dropped", drops, "n"], ["in flight", (r) => count(r.in_flight), "n"]], rows) : el("p", { class: "soft" }, "Nothing has passed yet."));
}
