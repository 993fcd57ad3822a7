// What was recorded, and what it was.
import { count, el, table } from "./format.js";
import * as asking from "./asking.js";
import { act } from "./link.js";
import { toast } from "./toasts.js";

let box, dialog, mayChange = false;

export function build(container, ask, operator) {
  box = container;
  dialog = ask;
  mayChange = operator;
}

export async function show() {
  const search = box.querySelector("input")?.value ?? "";
  let runs = [];
  try {
    const answer = await fetch(`/api/runs?limit=100&text=${encodeURIComponent(search)}`);
    runs = await answer.json();
    if (!answer.ok) throw new Error(runs.detail);
  } catch (error) {
    toast("The runs cannot be listed", error.message, "bad", { of: "runs" });
    return;
  }
  const field = el("input", { type: "search", placeholder: "sample, note, tag, number …", value: search, "aria-label": "Find runs", onchange: show });
  const moment = (text) => (text ? new Date(text).toLocaleString("sv-SE") : "–");
  const took = (run) => (run.start && run.stop ? `${((new Date(run.stop) - new Date(run.start)) / 1000).toFixed(0)} s` : "–");
  const list = runs.length ? table([
    ["run", (r) => el("b", {}, String(r.number ?? "–")), "n"], ["began", (r) => moment(r.start)], ["took", took, "n"], ["state", (r) => el("span", { class: "chip" }, el("span", { class: `dot ${r.state === "finished" ? "good" : r.state === "recording" ? "busy" : "warn"}` }), r.state)],
    ["sample", (r) => r.sample || "–", "wide"], ["note", (r) => r.note || "–", "wide"], ["tags", (r) => (r.tags ?? []).join(", ") || "–"], ["", (r) => el("span", { class: "row" }, el("button", { onclick: () => detail(r) }, "Show"), mayChange ? el("button", { onclick: () => label(r) }, "Label") : false)],
  ], runs) : el("div", { class: "empty" }, search ? "No such runs." : "Nothing is recorded yet. Record, at the top, begins.");
  box.replaceChildren(el("article", { class: "card" }, el("div", { class: "head" }, el("h2", {}, "Runs"), field), list));
  if (search) field.focus();
}

async function detail(run) {
  const answer = await fetch(`/api/runs/${encodeURIComponent(run.name)}`);
  const found = await answer.json();
  if (!answer.ok) return toast("It cannot be shown", found.detail, "bad", { of: "runs" });
  const streams = Object.entries(found.streams).map(([name, s]) => ({ name, ...s }));
  dialog.replaceChildren(el("h2", {}, `Run ${run.number ?? ""}`), el("p", { class: "soft", style: "overflow-wrap:anywhere" }, found.path),
    table([["stream", (s) => s.name], ["rows", (s) => count(s.rows), "n"], ["units", (s) => Object.values(s.units ?? {}).filter(Boolean).join(", ") || "–"]], streams),
    el("div", { class: "row", style: "margin-top:14px" }, el("button", { class: "main", onclick: () => dialog.close() }, "Close")));
  dialog.show();
}

function label(run) {
  const fields = Object.fromEntries(["sample", "operator", "note"].map((name) => [name, el("input", { value: run[name] ?? "", "aria-label": name, placeholder: name })]));
  fields.tags = el("input", { value: (run.tags ?? []).join(", "), "aria-label": "tags", placeholder: "tags, with commas" });
  const form = el("form", { method: "dialog", onsubmit: async () => {
    const tags = fields.tags.value.split(",").map((t) => t.trim()).filter(Boolean);
    await act("label", run.name, { sample: fields.sample.value, operator: fields.operator.value, note: fields.note.value, tags }).catch((e) => toast("Not labelled", e.message, "bad", { of: "runs" }));
    show();
  } }, el("h2", {}, `Run ${run.number ?? run.name}`), Object.values(fields), el("div", { class: "row" }, el("button", { type: "button", onclick: () => dialog.close() }, "Leave"), el("button", { class: "main", type: "submit" }, "Keep")));
  asking.show(`Run ${run.number ?? run.name}`, form);
}
