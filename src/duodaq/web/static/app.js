// The page: who shows what, and what is always in sight.
import { clock, el, mood, put } from "./format.js";
import * as link from "./link.js";
import * as alarms from "./alarms.js";
import { askName } from "./asking.js";
import * as camera from "./camera.js";
import * as control from "./control.js";
import * as instruments from "./instruments.js";
import * as log from "./log.js";
import * as migration from "./migration.js";
import { hear } from "./moment.js";
import * as panel from "./panel.js";
import * as plots from "./plots.js";
import * as presets from "./presets.js";
import * as runs from "./runs.js";
import * as scans from "./scans.js";
import * as stopping from "./stopping.js";
import * as tables from "./tables.js";
import { toast, viewed } from "./toasts.js";
import * as traces from "./traces.js";

const $ = (id) => document.getElementById(id);
const VIEWS = [["live", "Live"], ["alarms", "Alarms"], ["ports", "Ports", " and ledgers"], ["scans", "Scans"], ["presets", "Presets"], ["runs", "Runs"], ["migration", "Migration"], ["log", "Log"]];
let hello = null;
let now = null;
let lab = null;
let ringing = new Set();

function start() {
  $("views").replaceChildren(...VIEWS.map(([name, title, more]) => el("button", { data: { view: name }, onclick: () => { location.hash = name; } }, title, more ? el("span", { class: "long" }, more) : false)));
  addEventListener("hashchange", route);
  $("theme").addEventListener("click", theme);
  stopping.build({ banner: $("banner-latched"), button: $("stop-all"), askName });
  $("record").addEventListener("click", record);
  addEventListener("keydown", (e) => e.key === "Escape" && ($("ask").open ? $("ask").close() : panel.current() && panel.close()));
  alarms.build({ banner: $("banner-alarms"), list: $("view-alarms"), tab: document.querySelector("[data-view=alarms]"), askName });
  plots.build($("plots"));
  traces.build($("traces"));
  camera.build($("camera"));
  log.build($("view-log"));
  migration.build($("view-migration"));
  scans.build($("view-scans"), document.querySelector("[data-view=scans]"));
  presets.build($("view-presets"));
  panel.build($("panel"), () => instruments.mark(null));
  link.on("hello", greet);
  link.on("now", moved);
  link.on("lab", told);
  link.on("open", () => { $("banner-lost").hidden = true; document.body.classList.remove("old"); });
  link.on("close", lost);
  link.on("token", askToken);
  setInterval(figures, 1000);
  setInterval(aged, 500);
  new ResizeObserver(() => document.documentElement.style.setProperty("--top", `${document.querySelector(".above").offsetHeight}px`)).observe(document.querySelector(".above"));
  route();
  enter();
}

async function enter() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    history.replaceState(null, "", location.pathname);
    await show(token);
  }
  const session = await fetch("/api/session").then((a) => a.json()).catch(() => null);
  if (session?.role === "nobody") askToken(link.connect);
  else link.connect();
}

async function show(token) {
  const answer = await fetch("/api/session", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ token }) });
  if (answer.ok) return true;
  toast("Not let in", (await answer.json()).detail, "bad");
  return false;
}

function askToken(then) {
  put($("lab-line"), "a token is wanted");
  const input = el("input", { type: "password", autocomplete: "current-password", "aria-label": "Token", placeholder: "token" });
  const form = el("form", { onsubmit: async (e) => { e.preventDefault(); if (await show(input.value)) { $("ask").close(); then(); } } },
    el("h2", {}, "This lab wants a token"), el("p", { class: "soft", style: "margin:0" }, "The operator's, or one to look only. It is in the lab file under [web]."), input, el("div", { class: "row" }, el("button", { class: "main", type: "submit" }, "Enter")));
  $("ask").replaceChildren(form);
  $("ask").show();
}

function route() {
  const name = VIEWS.some(([view]) => `#${view}` === location.hash) ? location.hash.slice(1) : "live";
  for (const [view] of VIEWS) $(`view-${view}`).hidden = view !== name;
  $("views").querySelectorAll("button").forEach((b) => (b.dataset.view === name ? b.setAttribute("aria-current", "page") : b.removeAttribute("aria-current")));
  viewed(name);
  camera.inSight(name === "live");
  if (name === "runs") runs.show();
  if (name === "scans" && hello) scans.show();
  if (name === "presets" && hello) presets.show();
  if (name === "log") log.draw();
  if (name === "migration") migration.show();
  if (name === "ports" && lab) tables.show($("view-ports"), lab);
}

function greet(facts) {
  hello = facts;
  document.title = facts.lab;
  put($("lab-name"), facts.lab);
  instruments.build($("instruments"), facts.instruments, openPanel);
  alarms.greet(facts.role === "operator", facts.alarms);
  runs.build($("view-runs"), $("ask"), facts.role === "operator");
  migration.greet(facts.role === "operator");
  camera.greet(facts.role === "operator");
  scans.greet(facts.role === "operator", facts.instruments);
  if (!$("view-scans").hidden) scans.show();
  presets.greet(facts.role === "operator");
  channelled(facts.channels);
  $("record").hidden = facts.role !== "operator";
  stopping.greet(facts.role === "operator");
  const opened = panel.current();
  if (opened && facts.instruments.some((i) => i.id === opened)) openPanel(opened);
}

function openPanel(id) {
  instruments.mark(id);
  panel.open(hello.instruments.find((i) => i.id === id), hello.role === "operator");
}

function channelled(channels) {
  for (const view of [plots, traces, camera]) view.offer(channels);
}

function moved(moment, message) {
  now = moment;
  hear(moment, message.t_ms);
  ringing = alarms.moved(moment.alarms);
  aged();
  const recording = Boolean(moment.recording);
  put($("record"), recording ? "● Recording · end" : "Record");
  $("record").classList.toggle("recording", recording);
  $("record").title = recording ? `into ${moment.recording}` : "Record every channel";
  stopping.moved(moment);
  control.moved(moment.control, message.t_ms);
  scans.moved(moment.scans);
  put($("lab-line"), `${moment.state} · ${moment.viewers} ${moment.viewers === 1 ? "page" : "pages"}${hello?.role === "viewer" ? " · look only" : ""}`);
}

/** What the lab said last, at the time that it is now: a lab in which nothing changes says nothing. */
function aged() {
  if (!now || !link.state.open) return;
  instruments.moved(now, ringing);
  alarms.aged(now.alarms);
  panel.update();
}

function told(all) {
  lab = all;
  $("runtimes").replaceChildren(...["v2", "v4"].map((name) => el("span", { class: `chip ${name}`, data: { runtime: name }, title: name === "v2" ? "the classic runtime" : "the actor runtime" }, el("span", { class: `dot ${mood(all[name])}` }), name.toUpperCase(), el("small", {}, all[name]))));
  instruments.placed(all.instruments);
  channelled(all.channels);
  tables.show($("view-ports"), all);
}

async function record() {
  const recording = Boolean(now?.recording);
  if ($("record").disabled) return;
  $("record").disabled = true;
  try {
    const answer = await link.act(recording ? "record_stop" : "record_start");
    const rows = recording ? Object.values(answer.files).reduce((sum, n) => sum + n, 0) : 0;
    toast(recording ? "Recorded" : "Recording", recording ? `${rows} rows, ${answer.complete ? "complete" : "incomplete"}: ${answer.directory}` : answer.directory, recording && !answer.complete ? "bad" : "good");
    if (!$("view-runs").hidden) runs.show();
  } catch (error) {
    toast(recording ? "The recording is not ended" : "No recording is begun", error.message, "bad");
  } finally {
    $("record").disabled = false;
  }
}

function lost() {
  control.forget();
  document.body.classList.add("old");
  $("banner-lost").hidden = false;
  put($("banner-lost"), `The connection to the lab is lost since ${clock(link.state.since)}. What you see is old; it is tried again until it is back. The lab itself may well go on.`);
  put($("lab-line"), "not connected");
}

function theme() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("duodaq-theme", document.documentElement.dataset.theme);
  } catch {
    // for this visit alone
  }
  plots.restyle();
  traces.restyle();
}

let before = [0, 0];
function figures() {
  const rates = [plots.figures.updates - before[0], camera.figures.images - before[1]];
  before = [plots.figures.updates, camera.figures.images];
  const lost = link.state.lostRows || link.state.lostImages ? ` · not taken by this browser: ${link.state.lostRows} rows, ${link.state.lostImages} images` : "";
  put($("figures"), `duodaq ${hello?.version ?? ""} · plots ${rates[0]}/s · images ${rates[1]}/s${lost}`);
}

globalThis.duodaq = { plots: plots.figures, camera: camera.figures, traces: traces.figures, link: link.state };
start();
