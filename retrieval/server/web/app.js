// The page: its URL holds its state; a change of state sends a request, and the response is rendered.

import { ask, picture, thumbnailOf } from "./api.js";
import { hitOf, showHits } from "./cards.js";
import { $, button, count, counted, icon, make, shown, spoken, titleOf } from "./dom.js";
import { forget, rangeText, showFilters } from "./filters.js";
import * as keyboard from "./keyboard.js";
import * as panel from "./panel.js";
import { pictureOf, watch } from "./pictures.js";
import { MOST, PAGE, addressOf, isAsked, noParts, read, whereOf, withFilter, wordsOf } from "./state.js";

const PAUSE = 60; // milliseconds without a key press before typed text is searched
const ONE_ENTRY = 3000; // milliseconds: text typed without a longer pause is one history entry
const SORTED = Math.min(100, MOST); // hits: the service sorts this many of the best, not unrelated ones

let state = read();
let about = { facets: [], group: null };
let aboutIsKnown = false;
let running = null; // the search in progress, or null
let counting = null; // the sidebar's counts in progress, or null
let found = { hits: [], total: 0 };
let waiting = 0; // the timer of typed text, 0 without one
let leaving = null; // navigation to a history entry in progress: actions meanwhile apply to that entry
let typed = -Infinity; // time of the last typed history entry

// --- state

/** Change the state, the URL and the page. */
function go(change, { replace = false } = {}) {
  if (leaving) return void leaving.then(() => go(change, { replace }));
  const before = state;
  typed = -Infinity;
  state = { ...state, n: onlyItem(change) ? state.n : PAGE, ...change };
  const address = addressOf(state);
  if (replace) history.replaceState(history.state, "", address);
  else {
    history.replaceState({ ...history.state, scroll: scrollY }, "");
    history.pushState({ pushed: true, item: Boolean(change.item) }, "", address);
  }
  show(before);
  if (!onlyItem(change) && !replace) scrollTo(0, 0);
}

const onlyItem = (change) => Object.keys(change).every((name) => name === "item");

/** Render the state, and request what changed. */
async function show(before) {
  const searched = ({ item, n, ...rest }) => JSON.stringify(rest);
  if (document.activeElement !== $("q")) $("q").value = state.q;
  panel.showItem(state.item, about.group);
  if (before && searched(before) === searched(state) && found.hits.length) return;
  showControls();
  showParts();
  document.title = state.q || (state.like && `Like ${nameOf(state.like)}`) || "Search";
  await Promise.all([search(), countFacets()]);
}

addEventListener("popstate", async (event) => {
  const before = state;
  const now = (state = read());
  if (!leaving) {
    stopWaiting(); // but text typed while the panel closes is searched
    $("q").value = state.q;
  }
  await show(before);
  if (state === now) scrollTo(0, event.state?.scroll ?? 0);
});

const nameOf = (id) => (hitOf(id) ? titleOf(hitOf(id)) : id);

// --- searching

function question() {
  const { text, minus } = wordsOf(state.q);
  const body = { where: whereOf(state.filters) };
  const sent = state.picture && pictureOf(state.picture);
  if (text) body.text = text;
  if (state.like) body.like = state.like;
  if (sent) Object.assign(body, { image: sent.split(",")[1], target: "images" });
  if (minus && (text || state.like || sent)) body.minus = minus;
  if (text && (state.like || sent)) body.weights = weights(sent);
  if (about.group && state.group) body.group = about.group;
  if (state.sort) body.sort = [state.sort];
  return body;
}

function weights(sent) {
  const words = state.weight / 100;
  return { text: words, ...(state.like ? { like: 1 - words } : {}), ...(sent ? { image: 1 - words } : {}) };
}

const isBestSorted = () => Boolean(state.sort && isAsked(state));

async function search({ append = false } = {}) {
  running?.abort();
  const control = (running = new AbortController());
  showBusy();
  const offset = append ? found.hits.length : 0;
  const k = isBestSorted() ? SORTED : Math.min(append ? PAGE : state.n, MOST - offset);
  try {
    performance.mark("asked");
    const answer = await ask("/search", { ...question(), k, offset }, control.signal);
    if (running !== control) return;
    found = { hits: append ? [...found.hits, ...answer.hits] : answer.hits, total: answer.total, full: answer.hits.length === k };
    showFound(answer.hits, append);
  } catch (error) {
    if (error.name === "AbortError" || running !== control) return;
    showProblem(error);
  }
  running = null;
  showBusy();
}

function more() {
  if ($("more").hidden || $("main").ariaBusy === "true") return;
  state = { ...state, n: found.hits.length + PAGE };
  history.replaceState(history.state, "", addressOf(state));
  search({ append: true });
}

// --- rendering

/** Whether the end of the list is in view: an observer reports changes only, and once. */
const below = new IntersectionObserver((seen) => seen.at(-1).isIntersecting && more(), { rootMargin: "600px" });

function showBusy() {
  const isBusy = Boolean(running || waiting || leaving);
  $("main").ariaBusy = String(isBusy);
  below.unobserve($("more"));
  if (!isBusy) below.observe($("more"));
}

function showFound(hits, append) {
  const address = (id) => addressOf({ ...state, item: id });
  showHits(hits, { append, addressOf: address, asked: isAsked(state), onLike: like });
  performance.mark("shown");
  $("count").replaceChildren(...countText());
  $("more").hidden = isBestSorted() || !found.full || found.hits.length >= Math.min(found.total, MOST);
  $("notice").hidden = found.hits.length > 0;
  if (!found.hits.length) showEmpty();
  else if (state.picture && !pictureOf(state.picture)) notice("The picture of this search was in another tab. Drop or paste it here again.");
}

function countText() {
  if (!found.total) return ["No items"];
  if (isBestSorted()) return [`${count(found.hits.length)} of the best matches, of ${counted(found.total, "item")}`];
  const order = isAsked(state) && found.total > 1 ? [make("span", { className: "wide" }, ", best match first")] : [];
  return [counted(found.total, "item"), ...order];
}

function notice(text, ...buttons) {
  $("notice").replaceChildren(make("p", {}, text), ...buttons);
  $("notice").hidden = false;
}

function showEmpty() {
  const isFiltered = Object.keys(state.filters).length > 0;
  if (isFiltered) notice("Nothing passes these filters. Take one away, or widen a range.", button("Clear filters", () => go({ filters: {} })));
  else if (isAsked(state)) notice("Nothing was found. Try other words, or fewer.", button("Show everything", () => go(noParts)));
  else notice("There are no items yet. `retrieval build`, or PUT /items, fills the catalog.");
}

function showProblem(error) {
  $("hits").replaceChildren();
  $("more").hidden = true;
  $("count").textContent = "";
  found = { hits: [], total: 0 };
  notice(error.message, button("Try again", again), ...(isAsked(state) ? [button("Show everything", () => go(noParts))] : []));
}

function again() {
  forget();
  return start();
}

function showControls() {
  const numbers = about.facets.filter(({ kind }) => kind === "numbers").map(({ attribute }) => attribute);
  const ways = numbers.flatMap((name) => [[name, `${spoken(name)}, low to high`], [`-${name}`, `${spoken(name)}, high to low`]]);
  const first = isAsked(state) ? "Best match" : "Catalog order";
  $("sort").replaceChildren(...[["", first], ...ways].map(([value, label]) => make("option", { value }, label)));
  $("sort").value = ways.some(([value]) => value === state.sort) ? state.sort : "";
  $("sort").hidden = !ways.length;
  $("group-label").hidden = !about.group;
  $("group-label").title = `Show one item of each ${about.group}`;
  $("group").checked = Boolean(state.group);
}

/** Render the parts of the query besides text, each with a button to remove it. */
function showParts() {
  const { minus } = wordsOf(state.q);
  const sent = state.picture && pictureOf(state.picture);
  const parts = [];
  if (sent) parts.push(pictureChip(sent));
  if (state.like) parts.push(likeChip());
  if ((sent || state.like) && wordsOf(state.q).text) parts.push(slider());
  if (minus && isAsked(state)) parts.push(chip(`not ${minus}`, { q: wordsOf(state.q).text }, "minus"));
  for (const [key, chosen] of Object.entries(state.filters)) parts.push(...filterChips(key, chosen));
  if (parts.length > 1) parts.push(make("li", {}, button("Clear all", () => clearAll(), "text")));
  $("parts").replaceChildren(...parts);
  $("parts").hidden = parts.length === 0;
}

function chip(label, change, className = "", ...before) {
  const away = button(icon("close"), () => go(change), "plain");
  away.setAttribute("aria-label", `Remove ${label}`);
  return make("li", { className: `chip ${className}` }, ...before, make("span", {}, label), away);
}

function pictureChip(url) {
  const part = chip("Your picture", { picture: "" }, "picture", make("img", { src: url, alt: "" }));
  part.lastElementChild.before(button("Captions", () => panel.describe(url), "text"));
  return part;
}

const likeChip = () => chip(`Like ${nameOf(state.like)}`, { like: "" }, "picture", picture(thumbnailOf(state.like), { size: 120, lazy: false }));

function slider() {
  const input = make("input", { type: "range", min: 5, max: 95, step: 5, value: state.weight, "aria-label": "How much the words count beside the picture" });
  input.onchange = () => go({ weight: input.valueAsNumber }, { replace: true });
  return make("li", { className: "slider" }, make("label", {}, "picture ", input, " words"));
}

function filterChips(key, chosen) {
  if (!Array.isArray(chosen)) return [chip(`${spoken(key)} ${rangeText(chosen)}`, { filters: withFilter(state.filters, key) })];
  return chosen.map((value) =>
    chip(`${spoken(key)}: ${shown(value)}`, { filters: withFilter(state.filters, key, chosen.filter((one) => one !== value)) }),
  );
}

async function countFacets() {
  counting?.abort();
  const control = (counting = new AbortController());
  $("filters").ariaBusy = "true";
  try {
    await showFilters(about.facets, state.filters, (filters) => go({ filters }), control.signal);
  } catch (error) {
    if (counting === control) $("side").classList.add("empty"); // the search reports the error
  }
  if (counting === control) $("filters").ariaBusy = String(!aboutIsKnown);
}

// --- events

function like(id) {
  $("q").value = "";
  go({ ...noParts, filters: state.filters, like: id, item: "" });
}

function clearAll() {
  $("q").value = "";
  go(noParts);
}

function stopWaiting() {
  clearTimeout(waiting);
  waiting = 0;
  showBusy();
}

function takeTyped() {
  stopWaiting();
  const q = $("q").value;
  if (q.trim() === state.q.trim()) return;
  const isSame = performance.now() - typed < ONE_ENTRY;
  go({ q }, { replace: isSame });
  typed = performance.now();
}

function clear() {
  if (!$("q").value) return $("q").blur();
  $("q").value = "";
  takeTyped();
}

function closeItem() {
  if (!state.item) return;
  if (history.state?.pushed && history.state.item) goBack();
  else go({ item: "" }, { replace: true });
}

function goBack() {
  const back = new Promise((resolve) => addEventListener("popstate", resolve, { once: true }));
  leaving = back.then(() => {
    leaving = null;
    showBusy();
  });
  showBusy();
  history.back();
}

function openItem(id, { replace = false } = {}) {
  go({ item: id }, { replace });
}

function prepareControls() {
  $("q").oninput = () => {
    clearTimeout(waiting);
    waiting = setTimeout(takeTyped, PAUSE);
    showBusy();
  };
  $("form").onsubmit = (event) => {
    event.preventDefault();
    takeTyped();
  };
  $("sort").onchange = () => go({ sort: $("sort").value });
  $("group").onchange = () => go({ group: $("group").checked ? "1" : "" });
  $("more").onclick = more;
  $("hits").onclick = (event) => {
    const link = event.target.closest(".card");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openItem(link.parentElement.dataset.id);
  };
  panel.prepare({
    like,
    open: openItem,
    close: closeItem,
    variants: (key, value) => go({ ...noParts, group: "", item: "", filters: { [key]: [value] } }),
  });
  keyboard.prepare({ like, clear, step: (id) => openItem(id, { replace: true }) });
  watch((name) => go({ picture: name, like: "", item: "" }));
}

/** On a narrow screen the filters open as a sheet over the page. */
function prepareSheet() {
  const narrow = matchMedia("(max-width: 52rem)");
  const place = () => {
    if (!narrow.matches) $("sheet").close();
    (narrow.matches ? $("sheet") : $("side")).append($("filters"));
  };
  narrow.addEventListener("change", place);
  $("open-filters").onclick = () => $("sheet").showModal();
  $("sheet").addEventListener("click", (event) => event.target === $("sheet") && $("sheet").close());
  place();
}

/** Search at once, and request the sidebar's facets beside it. */
async function start() {
  const hits = show();
  try {
    about = await ask("/facets");
    aboutIsKnown = true;
    showControls();
    panel.showItem(state.item, about.group);
    if (state.group) await search();
    await countFacets();
  } catch {
    $("side").classList.add("empty");
    $("filters").ariaBusy = "false";
  }
  await hits;
}

history.scrollRestoration = "manual";
$("q").value = state.q;
prepareControls();
prepareSheet();
start();
