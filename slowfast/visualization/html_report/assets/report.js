// The page: its sections in order, each only if the run has what it shows.

const RELOAD_SECONDS = 60;

function summaryGroup(group) {
  const tiles = group.tiles.map(([name, value]) =>
    element("div", { class: "tile" }, element("strong", {}, value), element("span", {}, name)));
  const facts = group.facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  return element("div", { class: "group" }, element("h3", {}, group.title),
    group.warning ? element("p", { class: "warning" }, group.warning) : null,
    element("div", { class: "tiles" }, ...tiles), element("dl", {}, ...facts));
}

function mistakeCard(mistake) {
  const label = mistake.label.join(", ");
  const picture = mistake.frames
    ? element("img", { src: mistake.frames, decoding: "async", alt: `frames of ${mistake.path}` })
    : element("p", { class: "note" }, "The frames cannot be read.");
  return element("article", { class: "card" }, picture,
    element("p", {}, "Label ", element("b", { class: "good" }, label), ", predicted ",
      element("b", { class: "bad" }, mistake.prediction), ` with a score of ${(100 * mistake.score).toFixed(1)} %`),
    element("p", { class: "note code" }, mistake.path),
    mistake.note ? element("p", { class: "note" }, mistake.note) : null);
}

// What a function returns; a message instead of content of another structure than expected, so that the rest is shown.
function guarded(make) {
  try {
    return make();
  } catch (error) {
    return element("p", { class: "warning" }, `This part cannot be shown: ${error}`);
  }
}

// [id, title, content or null] of all sections.
function sections(content) {
  const groups = content.summary.filter((group) => group !== null).map(summaryGroup);
  const table = (name, options) => content[name] && sortableTable(content[name], { name, ...options });
  const problems = content.problems.map((line) => element("p", { class: "warning" }, line));
  const cells = (kind, items, make) => items.length && element("div", { class: kind }, ...items.map((item) => guarded(() => make(item))));
  const empty = element("p", {}, "There are no results yet.");
  return [
    ["summary", "Summary", () => element("div", {}, ...problems, ...(groups.length ? groups : [empty]))],
    ["curves", "Training curves", () => cells("charts", content.charts, lineChart)],
    ["confusion", "Confusion matrix", () => content.confusion && confusionSection(content.confusion)],
    ["per-class", "Results per class", () => table("per_class")],
    ["mistakes", "Most confident mistakes", () => cells("cards", content.mistakes, mistakeCard)],
    ["activity", "Activity per video or camera", () => content.activity && activitySection(content.activity, content.colors)],
    ["videos", "Results per video", () => table("videos")],
    ["failures", "Unreadable files", () => table("failures")],
    ["config", "Config: differences from the defaults", () => table("config")],
  ].map(([id, title, make]) => [id, title, guarded(make)]).filter(([, , shown]) => shown);
}

// Reload a page about a run in progress, if that was chosen; the choice is kept in the address.
function reloading() {
  const chosen = location.hash === "#reload";
  const box = element("input", { type: "checkbox", change: () => {
    history.replaceState(null, "", box.checked ? "#reload" : "#");
    if (box.checked) start();
  } });
  const start = () => setTimeout(() => box.checked && location.reload(), 1000 * RELOAD_SECONDS);
  box.checked = chosen;
  if (chosen) start();
  return element("label", {}, box, ` reload every ${RELOAD_SECONDS} s`);
}

function build(content) {
  const running = content.run.state === "running";
  const progress = content.run.progress ? `, ${content.run.progress}` : "";
  const header = element("header", {},
    element("h1", {}, content.name),
    content.subject ? element("p", { class: "note" }, content.subject) : null,
    element("p", { class: "bar" }, element("span", { class: `badge ${content.run.state}` }, `Run ${content.run.text}${progress}`),
      element("span", { class: "note" }, `written ${content.written}`), running ? reloading() : null));
  const parts = sections(content);
  const links = parts.map(([id, title]) => element("a", { href: `#${id}` }, title.split(":")[0]));
  const main = parts.map(([id, title, shown]) => element("section", { id }, element("h2", {}, title), shown));
  document.body.append(header, element("nav", { "aria-label": "Sections" }, ...links), element("main", {}, ...main));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach((redraw) => redraw()));
}

build(JSON.parse(document.getElementById("content").textContent));
