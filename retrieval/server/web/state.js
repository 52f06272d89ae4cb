// The page's state in its URL: reloading, going back and a shared link restore it.

export const MOST = Number(document.documentElement.dataset.most); // largest offset + k of this service
export const PAGE = Math.min(24, MOST);

const DEFAULTS = { q: "", like: "", picture: "", item: "", sort: "", group: "", weight: 50, n: PAGE, filters: {} };

export function read(search = location.search) {
  const given = new URLSearchParams(search);
  const state = { ...DEFAULTS };
  for (const name of ["q", "like", "picture", "item", "sort", "group"]) state[name] = given.get(name) ?? "";
  state.weight = within(given.get("weight"), 5, 95, DEFAULTS.weight);
  state.n = within(given.get("n"), PAGE, MOST, PAGE);
  state.filters = readFilters(given.get("filters"));
  return state;
}

export function addressOf(state) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (name === "filters") {
      if (Object.keys(value).length) parts.set(name, JSON.stringify(value));
    } else if (value !== DEFAULTS[name]) parts.set(name, value);
  }
  return parts.size ? `?${parts}` : location.pathname;
}

export const noParts = { q: "", like: "", picture: "", filters: {}, sort: "" };

/** Whether there is a query; without one, the page browses. */
export const isAsked = (state) => Boolean(wordsOf(state.q).text || state.like || state.picture);

/** Return the words to search for and, from those that begin with "-", the ones to search away from. */
export function wordsOf(q) {
  const minus = [];
  const text = q.replace(/(^|\s)-("([^"]*)"?|\S+)/g, (_, before, word, quoted) => {
    minus.push(quoted ?? word);
    return before;
  });
  return { text: text.replace(/\s+/g, " ").trim(), minus: minus.join(" ").trim() };
}

/** Return the service's filter, without one key, to count its other values. */
export function whereOf(filters, without) {
  const entries = Object.entries(filters).filter(([key]) => key !== without);
  return Object.fromEntries(entries.map(([key, chosen]) => [key, conditionOf(chosen)]));
}

function conditionOf(chosen) {
  if (Array.isArray(chosen)) return { $in: chosen };
  const condition = {};
  if (chosen.from !== undefined) condition.$gte = chosen.from;
  if (chosen.to !== undefined) condition.$lte = chosen.to;
  if (chosen.below !== undefined) condition.$lt = chosen.below;
  return condition;
}

/** Return the filters with one key replaced; empty choices are removed. */
export function withFilter(filters, key, chosen) {
  const { [key]: _, ...others } = filters;
  return isChoice(chosen) ? { ...others, [key]: chosen } : others;
}

function readFilters(text) {
  try {
    const given = JSON.parse(text ?? "{}");
    if (given === null || typeof given !== "object" || Array.isArray(given)) return {};
    return Object.fromEntries(Object.entries(given).filter(([, chosen]) => isChoice(chosen)));
  } catch {
    return {};
  }
}

function isChoice(chosen) {
  if (Array.isArray(chosen)) return chosen.length > 0 && chosen.every((one) => ["string", "number", "boolean"].includes(typeof one));
  const bounds = chosen && typeof chosen === "object" ? Object.entries(chosen) : [];
  return bounds.length > 0 && bounds.every(([name, bound]) => ["from", "to", "below"].includes(name) && Number.isFinite(bound));
}

function within(text, low, high, otherwise) {
  const number = text === null ? NaN : Number(text);
  return Number.isFinite(number) ? Math.min(high, Math.max(low, Math.round(number))) : otherwise;
}
