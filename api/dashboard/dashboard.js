// The page: what the server tells is put into words and curves. Names are strangers' text: never markup.

import { element, spark, stack } from "./chart.js";
import { age, clock, rate, share, short, whole } from "./figures.js";
import { follow } from "./stream.js";

const KEPT = 150;
const SERIES = ["admitted", "limited", "refused"];
const LABELS = { admitted: "Admitted", limited: "Over a limit", refused: "Refused" };
const WINDOWS = { hour: "this hour", day: "today", all: "all time" };

const $ = (id) => document.getElementById(id);
const at = (name, value) => document.querySelector(`[data-${name}="${value}"]`);
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };

const rates = []; // {at, admitted, limited, refused}
const series = {}; // name → [{at, value}]
let last = null, lastAt = 0;

/* Curves */

function point(ms, found) {
  return { at: ms, admitted: found.admitted, limited: found.limited, refused: found.unauthorized + found.unavailable };
}

function keep(list, item) {
  if (list.length && item.at <= list.at(-1).at) return;
  list.push(item);
  while (list.length > KEPT) list.shift();
}

function track(name, ms, value) {
  series[name] ??= [];
  if (value !== null) keep(series[name], { at: ms, value });
  return series[name];
}

function drawCurves() {
  stack($("chart"), rates, SERIES, LABELS, rate);
  const calls = rates.map((it) => ({ at: it.at, value: it.admitted + it.limited + it.refused }));
  const refused = rates.map((it) => ({ at: it.at, value: it.limited + it.refused }));
  spark(at("spark", "calls"), calls, rate);
  spark(at("spark", "refused"), refused, rate);
  spark(at("spark", "sessions"), series.sessions ?? [], short);
  spark(at("spark", "callers"), series[`callers ${chosen()}`] ?? [], short);
}

function drawLegend() {
  $("legend").replaceChildren(...SERIES.map((name) => {
    const item = document.createElement("li"), value = document.createElement("b");
    const swatch = element("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" });
    swatch.append(element("rect", { class: name, width: 12, height: 12, rx: 3 }));
    value.dataset.legend = name;
    item.append(swatch, `${LABELS[name]} `, value);
    return item;
  }));
}

/* Figures */

function showRates(found, redis) {
  if (found) {
    const now = point(0, found), refused = now.limited + now.refused;
    put(at("figure", "calls"), rate(now.admitted + refused));
    put(at("figure", "refused"), rate(refused));
    put(at("detail", "calls"), `${rate(now.admitted)} admitted`);
    const unavailable = found.unavailable ? ` · ${rate(found.unavailable)} as stores were away` : "";
    put(at("detail", "refused"), `${rate(found.limited)} over a limit · ${rate(found.unauthorized)} without a session${unavailable}`);
    for (const name of SERIES) put(at("legend", name), rate(now[name]));
    return;
  }
  for (const name of ["calls", "refused"]) {
    put(at("figure", name), "–");
    put(at("detail", name), redis ? "Measuring…" : "Redis is away");
  }
  for (const name of SERIES) put(at("legend", name), "–");
}

function showShares(found, redis) {
  for (const name of ["cached", "fallback", "tombstone", "degraded"]) {
    put(at("share", name), found ? share(found[name]) : "–");
    at("bar", name).setAttribute("width", found ? `${(found[name] * 100).toFixed(1)}%` : "0");
  }
  const said = found ? `Of ${whole(found.judged)} calls with a token of ours in the last minute` : redis ? "No calls in the last minute" : "Redis is away";
  put(at("detail", "shares"), said);
}

function showSessions(found, postgresql, ms) {
  put(at("figure", "sessions"), found ? short(found.count) : "–");
  const when = found ? age((ms - found.countedAtMs) / 1000) : "";
  const said = found ? (found.estimated ? `Estimated ${when}: too many to count` : `Counted ${when}`) : postgresql ? "Not counted in time" : "PostgreSQL is away";
  put(at("detail", "sessions"), said);
}

/* Top users */

const chosen = () => document.querySelector("#window input:checked").value;

function row(rank) {
  const made = document.createElement("tr");
  const number = document.createElement("td"), who = document.createElement("th"), bar = document.createElement("td"), calls = document.createElement("td");
  const name = document.createElement("bdi"), id = document.createElement("span");
  const svg = element("svg", { width: "100%", height: 6, "aria-hidden": "true" });
  svg.append(element("rect", { class: "track", width: "100%", height: 6, rx: 3 }), element("rect", { class: "good", height: 6, rx: 3 }));
  [number.className, bar.className, calls.className, id.className, who.scope] = ["rank", "share", "calls", "id", "row"];
  number.textContent = rank;
  who.append(name, id);
  bar.append(svg);
  made.append(number, who, bar, calls);
  return made;
}

function showTop(rankings, redis) {
  const window = chosen(), found = rankings?.[window], rows = $("top-rows");
  put(at("figure", "callers"), found ? short(found.callers) : "–");
  put(at("detail", "callers"), found ? (window === "all" ? "Of all time, estimated within about 1%" : `Exactly, ${WINDOWS[window]} (UTC)`) : redis ? "Not counted in time" : "Redis is away");
  put($("top-caption"), `The ten users with most calls of ${WINDOWS[window]}`);
  const top = found?.top ?? [];
  while (rows.children.length > top.length) rows.lastChild.remove();
  while (rows.children.length < top.length) rows.append(row(rows.children.length + 1));
  top.forEach(({ userId, name, calls }, rank) => {
    const [, who, bar, count] = rows.children[rank].children;
    put(who.firstChild, name ?? `User ${userId}`);
    put(who.lastChild, name === null ? "no name known" : `#${userId}`);
    who.title = name ?? `User ${userId}`;
    bar.firstChild.lastChild.setAttribute("width", `${((calls / top[0].calls) * 100).toFixed(1)}%`);
    put(count, whole(calls));
  });
  $("top").hidden = !top.length;
  $("top-empty").hidden = top.length > 0;
  const ever = (rankings?.all.top.length ?? 0) > 0;
  put($("empty-title"), found ? (ever ? `No calls ${WINDOWS[window]}` : "No calls yet") : "Nothing to show");
  put($("empty-text"), found ? (ever ? "Hours and days begin in UTC." : "Whoever logs in and calls a protected route appears here.") : redis ? "The counters were not read in time." : "The counters are in Redis, which is away.");
}

/* Health */

function showHealth(found) {
  const set = (name, is, word, more = "") => {
    const item = at("health", name);
    item.dataset.is = is;
    put(item.querySelector(".word"), word);
    put(item.querySelector(".more"), more);
  };
  set("redis", found.redis ? "good" : "away", found.redis ? "Answers" : "Away", found.redis ? "Cached sessions, limits, counters" : "Each process keeps the limits on its own");
  set("postgresql", found.postgresql ? "good" : "away", found.postgresql ? "Answers" : "Away", found.postgresql ? "Accounts, sessions, snapshots" : "Nobody can log in or out");
  const jobs = [["worker", found.workerLate, found.heartbeatAgeS, "Publishes changed sessions", "No worker publishes sessions: is one running?"], ["snapshot", found.snapshotLate, found.snapshotAgeS, "Counters copied to PostgreSQL", "Lost counters would come back as old as this"]];
  for (const [name, late, seconds, normal, worry] of jobs) {
    if (!found.redis) set(name, "unknown", "Not known", "Redis is away");
    else set(name, late ? "late" : "good", seconds === null ? "Never" : age(seconds), late ? worry : normal);
  }
}

function notices(state, found) {
  const said = [];
  if (state === "disconnected") said.push(lastAt ? `The server does not answer. These figures are from ${clock(lastAt)}; the page tries again by itself.` : "The server does not answer; the page tries again by itself.");
  if (state === "crowded") said.push("Too many dashboards are open on this server. Close one; this page tries again by itself.");
  if (state === "live" && found && !found.redis && !found.postgresql) said.push("Redis and PostgreSQL are away: calls are answered with 503.");
  else if (state === "live" && found && !found.redis) said.push("Redis is away: sessions are checked in PostgreSQL, and calls are counted when it is back.");
  else if (state === "live" && found && !found.postgresql) said.push("PostgreSQL is away: cached sessions go on working, and nobody can log in or out.");
  if (said.join("\n") === [...$("notices").children].map((it) => it.textContent).join("\n")) return;
  $("notices").replaceChildren(...said.map((text) => {
    const made = document.createElement("p");
    made.className = "notice";
    made.textContent = text;
    return made;
  }));
}

/* All together */

const STATES = {
  loading: () => "Connecting…",
  live: () => "Live",
  retrying: () => `Reconnecting… last data ${clock(lastAt)}`,
  disconnected: () => (lastAt ? `Disconnected, last data ${clock(lastAt)}` : "Disconnected"),
  crowded: () => "Waiting for a place",
  paused: () => (lastAt ? `Paused at ${clock(lastAt)}` : "Paused"),
};

function state(name) {
  if (document.body.dataset.state !== name) document.body.dataset.state = name;
  put($("status-text"), STATES[name]());
  notices(name, last);
}

function show() {
  if (!last) return;
  showRates(last.rates, last.redis);
  showShares(last.shares, last.redis);
  showSessions(last.sessions, last.postgresql, last.atMs);
  showTop(last.rankings, last.redis);
  showHealth(last);
  drawCurves();
}

const stream = follow({
  state,
  history(points) {
    for (const [ms, found] of points) keep(rates, point(ms, found));
  },
  overview(found) {
    last = found;
    lastAt = Date.now();
    if (found.rates) keep(rates, point(found.atMs, found.rates));
    track("sessions", found.atMs, found.sessions?.count ?? null);
    for (const window of Object.keys(WINDOWS)) track(`callers ${window}`, found.atMs, found.rankings?.[window].callers ?? null);
    $("figures").setAttribute("aria-busy", "false");
    show();
    notices("live", last);
  },
});

$("window").addEventListener("change", show);
$("pause").addEventListener("click", () => {
  const paused = document.body.dataset.state === "paused";
  put($("pause"), paused ? "Pause" : "Resume");
  if (paused) stream.resume(); else stream.pause();
});
new ResizeObserver(() => drawCurves()).observe($("chart"));
drawLegend();
for (const name of ["calls", "refused", "sessions", "callers"]) put(at("detail", name), "Waiting for the first figures");
put($("empty-title"), "Connecting");
put($("empty-text"), "The first figures come within a second or two.");
$("top").hidden = true;
$("top-empty").hidden = false;
