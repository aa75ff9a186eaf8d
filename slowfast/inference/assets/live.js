// Shows the state of the run, which is asked for several times per second. All text is set as text, never as HTML.

const EVERY = 300; // milliseconds between requests
const RETRY = 5000; // after a failed request
const cards = new Map();

function element(tag, name, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children);
  return made;
}

function card(source) {
  if (!cards.has(source.index)) {
    const parts = {
      name: element("h2"), status: element("p", "note bad"), top: element("div", "class"), best: element("div", "best"),
      tiles: element("div", "tiles"), picture: element("img"), losses: element("p", "note bad"), shown: -1,
    };
    const numbers = element("div", "", parts.top, parts.best, parts.tiles, parts.losses);
    const content = element("div", "content", numbers, element("div", "", parts.picture));
    document.getElementById("sources").append(element("section", "", parts.name, parts.status, content));
    cards.set(source.index, parts);
  }
  return cards.get(source.index);
}

function tile(title, value) {
  return element("div", "tile", element("strong", "", value), element("span", "", title));
}

function bar(name, score) {
  const fill = element("i", "fill");
  fill.style.width = `${100 * score}%`;
  return [element("div", "", fill, element("span", "", name)), element("b", "", `${(100 * score).toFixed(1)} %`)];
}

const rates = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const milliseconds = (value) => (value === null ? "-" : `${value.toFixed(value < 10 ? 1 : 0)} ms`);

function status(source) {
  if (source.ended) return "The source has ended.";
  return source.absence === null ? "" : `No connection for ${source.absence.toFixed(0)} s.`;
}

function update(source) {
  const parts = card(source);
  parts.name.textContent = source.name;
  parts.status.textContent = status(source);
  parts.top.textContent = source.best.length ? source.best[0][0] : "no events";
  parts.best.replaceChildren(...source.best.flatMap(([name, score]) => bar(name, score)));
  const [p50, p95, p99] = source.percentiles.map(milliseconds);
  parts.tiles.replaceChildren(
    tile("latency", source.best.length ? milliseconds(source.latency) : "-"), tile("p50", p50), tile("p95", p95), tile("p99", p99),
    tile("events/s", rates.format(source.rate)), tile("windows", source.windows), tile("without events", source.silent));
  parts.losses.textContent = Object.entries(source.losses).map(([reason, count]) => `${count} ${reason}`).join(", ");
  if (source.number !== parts.shown) {
    parts.shown = source.number;
    parts.picture.alt = `Events from ${source.start} s to ${source.end} s`;
    parts.picture.src = `window/${source.index}.png?${source.number}`;
  }
}

function say(text) {
  const message = document.getElementById("message");
  message.textContent = text;
  message.hidden = !text;
}

async function ask() {
  let wait = EVERY;
  try {
    const state = await (await fetch("state.json")).json();
    document.title = `${state.model}: live events`;
    document.getElementById("about").textContent = `${state.model}, ${state.windows}`;
    document.getElementById("waiting").hidden = state.sources.length > 0;
    state.sources.forEach(update);
    say(state.ended ? "The run has ended." : "");
    if (state.ended) return;
  } catch {
    say("The server cannot be reached.");
    wait = RETRY;
  }
  setTimeout(ask, wait);
}

ask();
