// Presets: what is set now kept under a name, and what loading one would change, shown before anything is set.
import * as asking from "./asking.js";
import { count, el, listed, neat, plain, table } from "./format.js";
import { act } from "./link.js";
import { toast } from "./toasts.js";

const DOES = { set: "is set", left: "is left to you", missing: "cannot be set", same: "is so already" };
let box, operator = false;

export function build(container) {
  box = container;
}

export function greet(isOperator) {
  operator = isOperator;
  box.replaceChildren();
  if (!box.hidden) show();
}

async function asked(path) {
  const answer = await fetch(path);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail);
  return found;
}

export async function show() {
  let all = [];
  try {
    all = await asked("/api/presets");
  } catch (error) {
    toast("The presets cannot be listed", error.message, "bad", { of: "presets" });
    return;
  }
  const list = all.length ? table([
    ["preset", (p) => el("b", {}, p.name)], ["saved", (p) => (p.saved ? new Date(p.saved).toLocaleString("sv-SE") : "–")], ["by", (p) => p.by || "–"],
    ["settings", (p) => (p.error ? el("span", { class: "hot" }, p.error) : `${count(p.settings)} of ${listed(p.instruments, 4)}`), "wide"], ["note", (p) => p.note || "–", "wide"], ["", buttons],
  ], all) : el("div", { class: "empty" }, "No settings are kept yet. A preset is a file beside the lab file: what is set now, under a name.");
  box.className = "view stack";
  box.replaceChildren(el("article", { class: "card" }, el("div", { class: "head" }, el("h2", {}, "Presets")), list), ...(operator ? [saving()] : []));
}

const buttons = (preset) => el("span", { class: "row" },
  el("button", { disabled: Boolean(preset.error), "aria-label": `${operator ? "Load" : "Compare"} ${preset.name}`, onclick: (e) => compare(preset.name, e.target) }, operator ? "Load …" : "Compare"),
  operator ? el("button", { class: "danger", "aria-label": `Remove ${preset.name}`, onclick: () => remove(preset.name) }, "Remove …") : false);

function saving() {
  const name = el("input", { "aria-label": "Name of the preset", placeholder: "name", required: true, maxLength: 99, title: "Letters, digits, spaces, '.', '-' and '_'" });
  const note = el("input", { "aria-label": "Note", placeholder: "a word about it", maxLength: 2000 });
  const go = el("button", { class: "main", type: "submit" }, "Keep what is set now");
  const form = el("form", { class: "row", onsubmit: async (e) => {
    e.preventDefault();
    if (go.disabled) return;
    go.disabled = true;
    await save({ name: name.value.trim(), note: note.value });
    go.disabled = false;
  } }, name, note, go);
  return el("article", { class: "card keep" }, form, el("small", {}, "Every setting is read from its device first."));
}

async function save(wish) {
  try {
    const kept = await act("preset_save", null, wish);
    const missing = kept.facts.not_read;
    toast(`Kept as ${wish.name}`, missing.length ? [`Without ${missing.length} that could not be read:`, ...missing.slice(0, 5)] : "", missing.length ? "bad" : "good", { of: "presets" });
    show();
  } catch (error) {
    if (error.status === 409 && !wish.replace && /already/.test(error.message)) {
      asking.question({ title: `Replace ${wish.name}?`, words: `${error.message}. What it has now is gone then.`, button: "Replace it", danger: true }, () => save({ ...wish, replace: true }));
      return;
    }
    toast("Nothing is kept", error.message, "bad", { of: "presets" });
  }
}

function remove(name) {
  asking.question({ title: `Remove ${name}?`, words: "Its file is gone then. Nothing that is set changes.", button: "Remove it", danger: true }, async () => {
    try {
      await act("preset_remove", name);
    } catch (error) {
      toast(`${name} is not removed`, error.message, "bad", { of: "presets" });
    }
    show();
  });
}

/** What loading would change, read from the devices now; and the button that does it, if it can be done. */
async function compare(name, button) {
  const words = button.textContent;
  button.disabled = true;
  button.textContent = "reads …";
  try {
    offer(name, await asked(`/api/presets/${encodeURIComponent(name)}/diff`));
  } catch (error) {
    toast(`${name} cannot be compared`, error.message, "bad", { of: "presets" });
  } finally {
    button.disabled = false;
    button.textContent = words;
  }
}

function offer(name, rows) {
  const changes = rows.filter((row) => row.what !== "same");
  const sets = rows.filter((row) => row.what === "set");
  const missing = rows.filter((row) => row.what === "missing").length;
  const value = (v, unit) => (typeof v === "number" ? neat(v, unit) : `${plain(v)}${unit && v !== null ? ` ${unit}` : ""}`);
  const shown = changes.length ? table([
    ["setting", (r) => el("b", {}, `${r.instrument}.${r.name}`)], ["now", (r) => value(r.now, r.unit), "n"], ["then", (r) => value(r.then, r.unit), "n"], ["", (r) => el("span", { class: r.what === "missing" ? "hot" : "" }, r.why ? `${DOES[r.what]}: ${r.why}` : DOES[r.what]), "wide"],
  ], changes) : el("p", {}, `All ${rows.length} settings of it are so already.`);
  const said = missing ? `It cannot be loaded: ${missing} of it cannot be set. Nothing would be.` : sets.length ? `Loading sets ${sets.length} of ${rows.length} settings, and nothing if the lab refuses one of them before.` : "There is nothing to be set.";
  if (!operator || missing || !sets.length) {
    asking.show(name, [el("h2", {}, name), shown, el("p", { class: "soft" }, said), el("div", { class: "row" }, el("button", { class: "main", onclick: asking.close }, "Close"))], { wide: true });
    return;
  }
  asking.question({ title: `Load ${name}?`, words: [shown, said], button: `Set ${sets.length}`, wide: true, about: { preset: name } }, () => load(name));
}

async function load(name) {
  try {
    const rows = await act("preset_load", name);
    const done = rows.filter((row) => row.what === "set");
    const left = rows.filter((row) => row.what === "left").map((row) => `${row.instrument}.${row.name}`);
    toast(`${name} is loaded`, [`${done.length} set.`, left.length ? `Left to you: ${listed(left)}.` : ""], "good", { of: "presets" });
  } catch (error) {
    const partly = error.done ? [`Set before: ${listed(error.done) || "nothing"}.`, error.not_done?.length ? `Not tried: ${listed(error.not_done)}.` : ""] : [];
    toast(error.done ? `${name} is loaded in part` : `${name} is not loaded`, [error.message, ...partly], "bad", { stays: Boolean(error.done), of: error.done ? "" : "presets" });
  }
}
