// Questions, in the one dialog that never stands before STOP ALL: what is shown there takes the place of what was.
import { el } from "./format.js";
import { clear } from "./toasts.js";

const NAME = "duodaq-name";
const dialog = () => document.getElementById("ask");

/** Show `content` under `title`; what is told of by a table is `wide`. */
export function show(title, content, { wide = false } = {}) {
  clear();
  const box = dialog();
  if (box.open) box.close();
  box.className = wide ? "wide" : "";
  box.setAttribute("aria-label", title);
  box.replaceChildren(...[content].flat());
  box.show();
}

export const close = () => dialog().close();

/** Whether that is what is asked now. */
export const isAsked = (content) => dialog().open && dialog().contains(content);

/** A form with its buttons: `then` is waited for, once, and the dialog closed behind it. */
export function question({ title, words, fields = [], button, leave = "Leave it", danger = false, wide = false, about = {} }, then) {
  const yes = el("button", { class: danger ? "main danger" : "main", type: "submit" }, button);
  const form = el("form", { data: about, onsubmit: async (e) => {
    e.preventDefault();
    if (yes.disabled) return;
    yes.disabled = true;
    try {
      await then();
    } finally {
      yes.disabled = false;
      if (isAsked(form)) close();
    }
  } }, el("h2", {}, title), [words].flat().filter(Boolean).map((line) => (typeof line === "string" ? el("p", { class: "soft" }, line) : line)), fields,
  el("div", { class: "row" }, el("button", { type: "button", onclick: close }, leave), yes));
  show(title, form, { wide });
  return form;
}

/** Ask for the name of whoever does it, which is remembered, and for `more`; `once`: only if it is not known yet. */
export function askName({ leave = "Not now", once = false, more = [], ...what }, then) {
  const name = knownName();
  if (once && name) {
    then(name);
    return null;
  }
  const who = el("input", { value: name, placeholder: "your name, for the log", "aria-label": "Your name", required: true, maxLength: 100, pattern: ".*\\S.*", title: "Your name, for the log" });
  return question({ ...what, leave, fields: [who, ...more] }, () => {
    keep(who.value.trim());
    return then(who.value.trim());
  });
}

function knownName() {
  try {
    return localStorage.getItem(NAME) ?? "";
  } catch {
    return ""; // asked each time
  }
}

function keep(name) {
  try {
    localStorage.setItem(NAME, name);
  } catch {
    // asked each time
  }
}
