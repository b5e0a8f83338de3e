"use strict";
(() => {
const report = JSON.parse(document.getElementById("data").textContent);
const build = report.build, steps = build.Steps || [], other = report.other;
const $ = (selector) => document.querySelector(selector);
const make = (tag, props, ...children) => {
  const element = Object.assign(document.createElement(tag), props || {});
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};
const NS = 1e9;
const time = (ns) => {
  if (ns === undefined || ns === null) return "";
  if (ns < 1e6) return (ns / 1e3).toFixed(0) + " µs";
  if (ns < 0.1 * NS) return (ns / 1e6).toFixed(0) + " ms";
  if (ns < 60 * NS) return (ns / NS).toFixed(1) + " s";
  const s = Math.round(ns / NS);
  return Math.floor(s / 60) + " m " + String(s % 60).padStart(2, "0") + " s";
};
const bytes = (n) => {
  if (n === undefined || n === null) return "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (n >= 1000 && at < units.length - 1) { n /= 1000; at++; }
  return (at === 0 ? n : n.toFixed(1)) + " " + units[at];
};
// Timestamps have nanoseconds, which Date drops.
const stamp = (text) => {
  if (!text) return null;
  const fraction = /\.(\d+)/.exec(text);
  return Date.parse(text.replace(/\.\d+/, "")) * 1e6 + (fraction ? Number(fraction[1].padEnd(9, "0")) : 0);
};
const origin = stamp(build.StartedAt);
for (const step of steps) {
  const began = stamp(step.started_at);
  step.from = began === null ? null : Math.max(0, began - origin);
  step.took = step.duration_ns || 0;
}
const total = build.Duration || Math.max(1, ...steps.map((step) => (step.from || 0) + step.took));
const critical = new Set(report.critical);
const word = { done: "ran", cached: "cached", failed: "failed", cancelled: "canceled", running: "running", waiting: "never began" };

function summary() {
  const header = $("#summary");
  header.replaceChildren(
    make("h1", {}, build.Name || "build", " ", make("span", { className: "badge " + build.Status, textContent: build.Status })),
    make("p", { className: "pale" }, "Build ", make("code", { textContent: build.Ref }), " of ", new Date(build.StartedAt).toLocaleString(),
      build.Tags ? ", named " + build.Tags.join(", ") : "", build.Platform ? ", for " + build.Platform.join(", ") : ""),
    build.Arguments ? make("p", {}, make("code", { textContent: "rbuild " + build.Arguments.join(" ") })) : null);
  const count = (state) => steps.filter((step) => step.state === state).length;
  const facts = [["Time", time(build.Duration)], ["Critical path", time(report.critical_ns)], ["Steps run", count("done")],
    ["Cached", count("cached") + " of " + steps.length], ["Processor time", time(steps.reduce((sum, step) => sum + (step.processor_ns || 0), 0))],
    ["New layers", bytes(steps.reduce((sum, step) => sum + (step.state === "done" ? step.size || 0 : 0), 0))]];
  header.append(make("ul", { className: "facts" }, ...facts.filter(([, value]) => value !== "").map(([name, value]) =>
    make("li", {}, make("b", { textContent: value }), make("span", { className: "pale", textContent: name })))));
  if (build.Error) header.append(make("p", { className: "error", textContent: build.Error.Message + (build.Error.Help ? "\n" + build.Error.Help : "") }));
  for (const warning of build.Warnings || []) header.append(make("p", { className: "pale", textContent: "Warning: " + warning }));
}

const picked = new Map();
const wire = (element, at) => {
  if (!picked.has(at)) picked.set(at, []);
  picked.get(at).push(element);
  element.addEventListener("click", () => pick(at));
  element.addEventListener("keydown", (event) => {
    if (event.target === element && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); pick(at); }
  });
};
function pick(at, quietly) {
  for (const [step, elements] of picked) for (const element of elements) {
    element.classList.toggle("picked", step === at);
    // Where a row is picked, its button says so.
    const speaker = element.querySelector("button") || element;
    if (step === at) speaker.setAttribute("aria-current", "true"); else speaker.removeAttribute("aria-current");
  }
  const step = steps[at];
  if (!step) return;
  const rows = [["State", word[step.state] + (step.hit === "content" ? ", because the content is the same" : "")], ["Why it ran", report.misses[at]],
    ["Line", step.line || ""], ["Stage", step.stage], ["Began after", step.from === null ? "" : time(step.from)], ["Took", step.duration_ns === undefined ? "" : time(step.took)],
    ["Processor time", time(step.processor_ns)], ["Most memory", bytes(step.memory)], ["Layer", bytes(step.size)], ["Exit code", step.exit_code === 0 ? "" : step.exit_code],
    ["Error", step.error], ["Transfers", Object.entries(step.transfers || {}).map(([item, n]) => item + ": " + bytes(n)).join(", ")], ["Key", step.key]];
  const list = make("dl");
  for (const [name, value] of rows) {
    if (value !== undefined && value !== null && value !== "") list.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
  }
  const log = report.logs[at];
  const output = make("pre", { textContent: log || "", tabIndex: 0, role: "group", ariaLabel: "Output" });
  $("#detail").replaceChildren(make("h3", { textContent: step.name }), list, log ? output : make("p", { className: "pale", textContent: "It said nothing." }));
  if (!quietly) history.replaceState(null, "", "#step-" + step.number);
}

function timeline() {
  const box = $("#timeline"), lanes = make("div", { className: "lanes" }), ends = [];
  const order = steps.map((_, at) => at).filter((at) => steps[at].from !== null && steps[at].state !== "waiting")
    .sort((a, b) => steps[a].from - steps[b].from || a - b);
  const share = (ns) => (100 * Math.min(ns, total)) / total;
  const step = [1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8, 2e8, 5e8, NS, 2 * NS, 5 * NS, 10 * NS, 30 * NS, 60 * NS, 300 * NS, 600 * NS, 3600 * NS].find((size) => total / size <= 8) || total;
  for (let at = 0; at <= total * 0.96; at += step) {
    const fine = step < 0.1 * NS && at >= 0.1 * NS && total < 60 * NS;
    const tick = make("div", { className: "tick", textContent: at === 0 ? "0" : fine ? (at / NS).toFixed(2) + " s" : time(at) });
    tick.style.left = share(at) + "%";
    box.append(tick);
  }
  const least = total * 0.006, marks = [];
  const place = (at, left, width, top) => {
    const one = steps[at];
    const text = one.name + ": " + word[one.state] + (one.took ? ", " + time(one.took) : "") + (critical.has(at) ? ", on the critical path" : "");
    const bar = make("button", { type: "button", className: "bar " + one.state + (critical.has(at) ? " critical" : ""), title: text, textContent: share(one.took) > 4 ? one.name : "" });
    bar.setAttribute("aria-label", text);
    Object.assign(bar.style, { left: left + "%", width: Math.min(width, 100 - left) + "%", top: top + "px" });
    wire(bar, at);
    lanes.append(bar);
    return bar;
  };
  // What came from the cache took no time: small marks in a few rows of their own, side by side where they are many.
  const strip = Math.min(6, order.filter((at) => steps[at].state === "cached").length) * 11;
  for (const at of order) {
    const one = steps[at];
    if (one.state === "cached") {
      let row = marks.findIndex((free) => free <= one.from);
      if (row < 0) row = marks.length < 6 ? marks.length : marks.indexOf(Math.min(...marks));
      const from = Math.max(one.from, marks[row] || 0);
      marks[row] = from + least * 1.3;
      place(at, Math.min(share(from), 99.4), 0.6, row * 11).classList.add("mark");
      continue;
    }
    let lane = ends.findIndex((free) => free <= one.from);
    if (lane < 0) lane = ends.length;
    ends[lane] = one.from + Math.max(one.took, least);
    place(at, share(one.from), share(Math.max(one.took, least)), strip + lane * 28);
  }
  lanes.style.height = strip + Math.max(1, ends.length) * 28 + "px";
  box.append(lanes);
}

const PHASES = { open: "open the store", context: "load the context", parse: "parse the Dockerfile", plan: "plan the steps", resolve: "resolve sources",
  prepare: "prepare", solve: "run the steps", assemble: "assemble the image", export: "export", cache_export: "export the cache", record: "record the build", clean: "clean up" };
// The phases around the steps: those within others are indented and pale, the longest is bold.
function phases() {
  const all = build.Phases || [];
  if (all.length === 0) return;
  $("#phases").hidden = false;
  const end = Math.max(1, ...all.map((phase) => phase.at_ns + phase.took_ns));
  const within = (phase) => all.some((other) => other !== phase && other.at_ns <= phase.at_ns && phase.at_ns + phase.took_ns <= other.at_ns + other.took_ns && other.took_ns > phase.took_ns);
  const outer = all.filter((phase) => !within(phase)), steps = outer.find((phase) => phase.phase === "solve");
  const longest = outer.reduce((best, phase) => (phase.took_ns > best.took_ns ? phase : best));
  const own = outer.reduce((sum, phase) => sum + (phase === steps ? 0 : phase.took_ns), 0);
  $("#phases p").textContent = time(own) + " of " + time(end) + " were spent beside the steps.";
  $("#phases table").replaceChildren(make("tbody", {}, ...all.map((phase) => {
    const bar = make("i");
    bar.setAttribute("aria-hidden", "true");
    Object.assign(bar.style, { marginLeft: (100 * phase.at_ns) / end + "%", width: (100 * phase.took_ns) / end + "%" });
    const row = make("tr", { className: (within(phase) ? "within" : "") + (phase === longest ? " slowest" : "") },
      make("th", { scope: "row", textContent: PHASES[phase.phase] || phase.phase }), make("td", {}, bar), make("td", { className: "number", textContent: time(phase.took_ns) }));
    return row;
  })));
}

function table(target, columns, rows) {
  const body = make("tbody");
  const heads = columns.map((column, index) => {
    const button = make("button", { type: "button", textContent: column.title });
    const head = make("th", { scope: "col" }, button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => {
        const [x, y] = [columns[index].sort(a), columns[index].sort(b)];
        return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
      });
      body.replaceChildren(...rows.map((row) => row.element));
    });
    return head;
  });
  for (const row of rows) {
    row.element = make("tr", {}, ...columns.map((column) => {
      const cell = make("td", { className: column.kind || "" });
      const value = column.show(row);
      const shown = value instanceof Node ? value : String(value ?? "");
      cell.append(column.picks && row.at !== undefined ? make("button", { type: "button" }, shown) : shown);
      return cell;
    }));
    if (row.at !== undefined) wire(row.element, row.at);
    body.append(row.element);
  }
  target.replaceChildren(make("thead", {}, make("tr", {}, ...heads)), body);
}

function list() {
  table($("#steps"), [
    { title: "Step", kind: "number", sort: (row) => row.step.number, show: (row) => row.step.number },
    { title: "Instruction", kind: "name mono", picks: true, sort: (row) => row.step.name, show: (row) => row.step.name },
    { title: "State", sort: (row) => row.step.state, show: (row) => make("span", { className: "badge " + row.step.state, textContent: word[row.step.state] }) },
    { title: "Time", kind: "number", sort: (row) => row.step.took, show: (row) => time(row.step.duration_ns) },
    { title: "Processor", kind: "number", sort: (row) => row.step.processor_ns || 0, show: (row) => time(row.step.processor_ns) },
    { title: "Memory", kind: "number", sort: (row) => row.step.memory || 0, show: (row) => bytes(row.step.memory) },
    { title: "Layer", kind: "number", sort: (row) => row.step.size || 0, show: (row) => bytes(row.step.size) },
    { title: "Why it ran", kind: "name", sort: (row) => report.misses[row.at] || "", show: (row) => report.misses[row.at] || "" },
  ], steps.map((step, at) => ({ step, at })));
}

// Squarified: rows of tiles whose sides stay near each other.
function treemap() {
  const tiles = steps.map((step, at) => ({ at, size: step.size || 0 })).filter((tile) => tile.size > 0).sort((a, b) => b.size - a.size);
  if (tiles.length === 0) return;
  $("#size").hidden = false;
  const box = $(".treemap"), sum = tiles.reduce((all, tile) => all + tile.size, 0);
  let [x, y, width, height] = [0, 0, 100, 26];
  let rest = tiles.slice(), left = sum;
  const worst = (row, side, area) => {
    const rowSum = row.reduce((all, tile) => all + tile.size, 0) * area;
    return Math.max(...row.map((tile) => { const one = tile.size * area; return Math.max((side * side * one) / (rowSum * rowSum), (rowSum * rowSum) / (side * side * one)); }));
  };
  while (rest.length > 0) {
    const area = (width * height) / left, side = Math.min(width, height);
    let row = [rest[0]];
    while (row.length < rest.length && worst(row.concat(rest[row.length]), side, area) <= worst(row, side, area)) row.push(rest[row.length]);
    const rowSize = row.reduce((all, tile) => all + tile.size, 0), depth = (rowSize * area) / side;
    let along = 0;
    for (const tile of row) {
      const length = (tile.size / rowSize) * side;
      const place = width <= height ? { x: x + along, y, w: length, h: depth } : { x, y: y + along, w: depth, h: length };
      along += length;
      const step = steps[tile.at], text = bytes(tile.size) + (step.line ? " line " + step.line + ": " : " ") + step.name;
      const tileButton = make("button", { type: "button", className: "tile " + step.state, title: text });
      tileButton.append(place.w > 9 && place.h > 2.2 ? text : "");
      tileButton.setAttribute("aria-label", text);
      Object.assign(tileButton.style, { left: place.x + "%", top: (place.y / 26) * 100 + "%", width: place.w + "%", height: (place.h / 26) * 100 + "%" });
      wire(tileButton, tile.at);
      box.append(tileButton);
    }
    if (width <= height) { y += depth; height -= depth; } else { x += depth; width -= depth; }
    left -= rowSize;
    rest = rest.slice(row.length);
  }
}

function compare() {
  if (!other) return;
  $("#compare").hidden = false;
  $("#compare p").textContent = "Build " + other.Ref + " of " + new Date(other.StartedAt).toLocaleString() + " took " + (time(other.Duration) || "no recorded time") + ", this one " + (time(build.Duration) || "no recorded time") + ".";
  const known = new Map(), rows = [];
  for (const step of other.Steps || []) known.set(step.name, (known.get(step.name) || []).concat(step));
  steps.forEach((step, at) => rows.push({ at, name: step.name, now: step, then: (known.get(step.name) || []).shift() }));
  // What was written anew stands beside the next instruction of its kind in its stage.
  const kind = (step) => step.stage + " " + step.name.replace(/^\[[^\]]*\]\s*/, "").split(" ")[0];
  for (const left of known.values()) for (const then of left) {
    const row = rows.find((row) => row.now && !row.then && kind(row.now) === kind(then));
    if (row) row.then = then; else rows.push({ name: then.name, then });
  }
  const cost = (step) => (step && step.duration_ns) || 0, told = (step) => step ? word[step.state] + (step.duration_ns ? ", " + time(step.duration_ns) : "") : "not there";
  const change = (row) => cost(row.now) - cost(row.then), size = (step) => (step ? step.size : 0);
  // The record of a step from the cache may say nothing of its size: then nothing is known of a change.
  const layer = (row) => (size(row.now) === undefined || size(row.then) === undefined ? 0 : size(row.now) - size(row.then));
  table($("#compare table"), [
    { title: "Instruction", kind: "name mono", picks: true, sort: (row) => row.name, show: (row) => make("span", {}, row.name,
      row.now && row.then && row.now.name !== row.then.name ? make("span", { className: "was", textContent: "\nbefore: " + row.then.name }) : null) },
    { title: "Other build", sort: (row) => cost(row.then), show: (row) => told(row.then) },
    { title: "This build", sort: (row) => cost(row.now), show: (row) => told(row.now) },
    { title: "Change", kind: "number", sort: change, show: (row) => {
      const by = change(row);
      return make("span", { className: by > 0 ? "slower" : "faster", textContent: by === 0 ? "" : (by > 0 ? "+" : "−") + time(Math.abs(by)) });
    } },
    { title: "Layer", kind: "number", sort: layer, show: (row) => {
      const by = layer(row);
      return make("span", { className: by > 0 ? "slower" : "faster", textContent: by === 0 ? "" : (by > 0 ? "+" : "−") + bytes(Math.abs(by)) });
    } },
  ], rows);
}

function graph() {
  // What can be pressed is no part of a picture.
  document.querySelector(".graph svg")?.setAttribute("role", "group");
  document.querySelectorAll(".graph .node").forEach((node, at) => {
    node.setAttribute("tabindex", "0");
    node.setAttribute("role", "button");
    wire(node, at);
  });
}

function hints() {
  if (report.hints.length === 0) return;
  $("#hints").hidden = false;
  $("#hints ol").replaceChildren(...report.hints.map((hint) => make("li", { textContent: hint })));
}

summary(); hints(); timeline(); phases(); list(); treemap(); compare(); graph();
const asked = /^#step-(\d+)$/.exec(location.hash);
const wanted = asked ? steps.findIndex((step) => step.number === Number(asked[1])) : steps.findIndex((step) => step.state === "failed");
const longest = steps.reduce((best, step, at) => (step.took > (steps[best]?.took || 0) ? at : best), 0);
pick(wanted >= 0 ? wanted : longest, true);
})();
