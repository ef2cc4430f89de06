// The page: asks for the newest sample once a second, and for new points of the plots every five. Whatever came from
// elsewhere (names, addresses, reasons) goes into the page as text, never as markup.

import { draw, svg } from "/plot.js";

const only = location.pathname.startsWith("/cluster/")
  ? decoded(location.pathname.slice("/cluster/".length))
  : null;
const $ = (id) => document.getElementById(id);
const past = { end: 0, calls: [], sessions: [], errors: [], delays: {}, step: 5, steps: 720 };
let faults = [];
let shown = null;
let heard = null;

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

function element(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const count = (value) => (value === null || value === undefined ? "–" : whole.format(value));
const rate = (value) => {
  if (value === null || value === undefined) return "–";
  return value > 0 && value < 10 ? value.toFixed(1) : whole.format(value);
};
const delay = (seconds) => {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${whole.format(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  return `${seconds.toFixed(1)} s`;
};
function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}
const clock = (time) => new Date(time * 1000).toLocaleTimeString([], { hour12: false });
const page = (cluster) => "/cluster/" + encodeURIComponent(cluster);

// Puts `text` there unless it is there: a screen reader reads only what changes.
function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

// ------------------------------------------------------------------------------------------------ what is wrong

function verdict(news) {
  const head = $("verdict");
  const troubles = news.troubles ?? [];
  const bad = troubles.filter((trouble) => trouble.bad).length;
  const members = (news.clusters ?? []).reduce((sum, cluster) => sum + cluster.size, 0);
  const clusters = (news.clusters ?? []).length;
  let text;
  let kind;
  if (!news.up) {
    [text, kind] = [`The daemon does not answer: ${news.why}`, "bad"];
  } else if (only !== null && clusters === 0) {
    [text, kind] = [`There is no cluster ${only}.`, "warn"];
  } else if (clusters === 0) {
    [text, kind] = ["The daemon runs and has no clusters.", "warn"];
  } else if (troubles.length) {
    const warnings = troubles.length - bad;
    const parts = [];
    if (bad) parts.push(`${bad} ${bad === 1 ? "fault" : "faults"}`);
    if (warnings) parts.push(`${warnings} ${warnings === 1 ? "warning" : "warnings"}`);
    [text, kind] = [parts.join(", "), bad ? "bad" : "warn"];
  } else {
    const of = only === null ? `${clusters} ${clusters === 1 ? "cluster" : "clusters"}, ` : "";
    [text, kind] = [`All is well: ${of}${members} ${members === 1 ? "member" : "members"} online`, "good"];
    if (news.clusters.some((cluster) => cluster.online < cluster.size)) text = "All is well.";
  }
  say(head, text);
  head.className = `verdict ${kind}`;
  document.title = (kind === "good" ? "" : `${news.up ? troubles.length || "!" : "✕"} · `) + "rtp_cluster" + (only === null ? "" : ` / ${only}`);
  $("list").replaceChildren(...troubles.slice(0, 50).map((trouble) => {
    const entry = element("li", trouble.bad ? { class: "bad" } : {});
    entry.append(element("span", { class: "kind" }, trouble.bad ? "Fault" : "Warning"));
    if (trouble.member) entry.append(element("span", { class: "name" }, trouble.member), " ");
    if (only === null) {
      if (trouble.member) entry.append(element("span", { class: "quiet" }, "of "));
      entry.append(element("a", { href: page(trouble.cluster) }, trouble.cluster), " ");
    } else if (!trouble.member) {
      entry.append("The cluster ");
    }
    entry.append(trouble.what);
    if (trouble.since !== null) entry.append(element("span", { class: "quiet" }, `, for ${span(trouble.since)}`));
    return entry;
  }));
  if (troubles.length > 50) $("list").append(element("li", {}, `and ${troubles.length - 50} more`));
}

// ---------------------------------------------------------------------------------------------------- clusters

function bar(sessions, capacity) {
  const share = capacity > 0 && sessions !== null ? sessions / capacity : 0;
  const level = share >= 1 ? "full" : share >= 0.9 ? "high" : "";
  const image = svg("svg", { class: level, viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  image.append(svg("rect", { width: Math.min(100, share * 100), height: 10 }));
  return element("span", { class: "track" }, image, element("small", {}, `${count(sessions)} / ${count(capacity)}`));
}

const CLASSES = { Delay: "delay number", Errors: "errors number", Since: "since number", Address: "address-of" };
const COLUMNS = ["Member", "State", "Load", "Delay", "Errors", "Since", "Why", "Address"];

function row(member) {
  const [name, online, status, active, capacity, bound, time, errors, since, why, weight, address] = member;
  const takes = status.toLowerCase() === "active";
  const state = (online ? "online" : "offline") + (takes ? "" : `, ${status.toLowerCase()}`);
  const cell = (column, text, kind = "") => element("td", { "data-name": column, ...(kind && { class: kind }) }, text);
  return element(
    "tr",
    { class: `${online ? "" : "offline"} ${takes ? "" : "idle"}`.trim() },
    element("th", { scope: "row" }, name),
    cell("State", state, "state"),
    cell("Load", bar(active ?? (online ? bound : null), capacity), "load"),
    cell("Delay", delay(time), "number"),
    cell("Errors", count(errors), "number"),
    cell("Since", span(since), "number"),
    cell("Why", why + (weight === 0 ? " (standby)" : ""), "why"),
    cell("Address", address, "quiet"),
  );
}

function table(cluster) {
  const heads = COLUMNS.map((name) => {
    return element("th", { scope: "col", class: CLASSES[name] ?? name.toLowerCase() }, name);
  });
  const caption = element("caption", { class: "hidden" }, `Members of ${cluster.name}`);
  return element(
    "table",
    {},
    caption,
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...cluster.members.map(row)),
  );
}

function card(cluster) {
  const title = element("h2", {});
  title.append(only === null ? element("a", { href: page(cluster.name) }, cluster.name) : cluster.name);
  if (cluster.draining) title.append(element("span", { class: "quiet" }, " draining"));
  const fact = (name, value) => element("div", {}, element("dt", {}, name), element("dd", {}, value));
  const facts = element(
    "dl",
    { class: "facts" },
    fact("members online", `${cluster.online} of ${cluster.size}`),
    fact("calls/s", rate(cluster.calls)),
    fact("sessions", count(cluster.sessions)),
    fact("errors/s", rate(cluster.errors)),
    fact("clients", count(cluster.clients)),
  );
  const made = element("section", { class: "cluster", "aria-label": `Cluster ${cluster.name}` });
  made.append(element("div", { class: "head" }, title, facts), element("p", { class: "address" }, cluster.address));
  if (cluster.members.length) made.append(table(cluster));
  const rest = cluster.size - cluster.members.length;
  if (rest) {
    const text = cluster.members.length ? `and ${rest} members without a fault` : `${rest} members without a fault`;
    made.append(element("p", { class: "rest" }, text));
  }
  return made;
}

// A link that has the focus keeps it when its place is made anew.
function replace(where, made) {
  const focused = where.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  where.replaceChildren(...made);
  if (focused !== null) where.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

// ----------------------------------------------------------------------------------------------------- changes

const WORDS = {
  offline: "went offline",
  online: "came online",
  away: "The daemon stopped answering",
  back: "The daemon answers again",
  restarted: "The daemon was restarted",
};
const isFault = (change) => ["offline", "away", "restarted"].includes(change.what);

function sentence(change) {
  if (!change.member) return WORDS[change.what] + (change.why ? `: ${change.why}` : "");
  const whose = only === null ? `${change.member} of ${change.cluster}` : change.member;
  return `${whose} ${WORDS[change.what]}` + (change.what === "offline" ? `: ${change.why}` : "");
}

function changes(news) {
  faults = news.changes.filter(isFault).map((change) => ({ at: change.at, name: `${clock(change.at)} ${sentence(change)}` }));
  const newest = news.changes.slice(-12).reverse();
  $("past").hidden = newest.length === 0;
  $("changes").replaceChildren(...newest.map((change) => element(
    "li",
    {},
    element("time", { datetime: new Date(change.at * 1000).toISOString() }, clock(change.at)),
    element("span", { class: isFault(change) ? "down" : "up" }, sentence(change)),
  )));
  // Read aloud is what has happened since the page was opened.
  const last = news.changes.at(-1);
  const key = last ? `${last.at} ${sentence(last)}` : "";
  if (heard !== null && key !== heard && last) say($("spoken"), sentence(last));
  heard = key;
}

// ------------------------------------------------------------------------------------------------------- plots

const figures = {};

function plots() {
  const sum = (key) => {
    const clusters = shown?.clusters ?? [];
    const known = clusters.map((cluster) => cluster[key]).filter((value) => value !== null && value !== undefined);
    return known.length ? known.reduce((a, b) => a + b, 0) : null;
  };
  const wanted = [
    ["calls", "New calls a second", rate(sum("calls")), rate, [{ points: past.calls }]],
    ["sessions", "Sessions", count(sum("sessions")), count, [{ points: past.sessions }]],
    ["errors", "Errors a second", rate(sum("errors")), rate, [{ points: past.errors }]],
  ];
  if (only !== null) {
    const newest = (points) => points.findLast((value) => value !== null) ?? 0;
    const curves = Object.entries(past.delays).map(([name, points]) => ({ name, points }));
    curves.sort((a, b) => newest(b.points) - newest(a.points));
    const slowest = curves.length ? newest(curves[0].points) : null;
    wanted.push(["delay", "Delay of members", `≤ ${delay(slowest)}`, delay, curves.slice(0, 64)]);
  }
  // Who has just been started has no hour to show: the plots grow with what is known.
  const known = past.sessions.length - past.sessions.findIndex((value) => value !== null);
  const steps = [60, 180, 360].find((steps) => steps >= known) ?? past.steps;
  for (const [key, title, now, unit, all] of wanted) {
    const curves = all.map(({ name, points }) => ({ name, points: points.slice(-steps) }));
    if (!figures[key]) $("plots").append((figures[key] = element("figure")));
    draw(figures[key], { title, now, unit, curves, faults, step: past.step, steps, end: past.end });
  }
}

async function remember() {
  const query = new URLSearchParams({ after: past.end });
  if (only !== null) query.set("cluster", only);
  const more = await ask(`/api/v1/history?${query}`);
  const joined = (old, add) => (old ?? []).concat(add).slice(-more.steps);
  const delays = {};
  for (const [name, points] of Object.entries(more.delays)) delays[name] = joined(past.delays[name], points);
  for (const key of ["calls", "sessions", "errors"]) past[key] = joined(past[key], more[key]);
  Object.assign(past, { delays, step: more.step, steps: more.steps, end: more.end });
}

// ------------------------------------------------------------------------------------------------------- rounds

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(8000) });
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

function daemon(news) {
  if (!news.up) return say($("daemon"), "daemon away");
  say($("daemon"), `version ${news.version}, up for ${span(news.uptime)}`);
}

async function round() {
  let pause = 1000;
  try {
    const news = await ask("/api/v1/page" + (only === null ? "" : `?${new URLSearchParams({ cluster: only })}`));
    pause = Math.max(1, news.pause) * 1000;
    // While the daemon is away its last state stays, pale.
    document.body.classList.toggle("stale", !news.up);
    if (news.up) shown = news;
    verdict(news);
    daemon(news);
    changes(news);
    if (news.up) replace($("clusters"), news.clusters.map(card));
    say($("age"), `As of ${clock(news.at)}.`);
    if (news.at >= past.end + past.step || past.end === 0) await remember();
    plots();
  } catch {
    document.body.classList.add("stale");
    const head = $("verdict");
    say(head, "rtp_cluster_status does not answer: what is shown is old.");
    head.className = "verdict bad";
    $("list").replaceChildren();
  }
  setTimeout(round, pause);
}

if (only !== null) {
  say($("where"), only);
  say($("title"), `Cluster ${only}`);
}
addEventListener("resize", () => { if (past.end) plots(); });
round();
