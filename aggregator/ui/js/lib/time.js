// Converts and formats times. The API sends RFC 3339 in UTC with microseconds. Pages show UTC unless the user selects
// local time, and every column names its zone.

const KEY = "piperoll.zone";

export const zone = {
  /** "utc" or "local"; the URL takes precedence over the stored preference. */
  get: () =>
    (new URLSearchParams(location.search).get("zone") ?? localStorage.getItem(KEY)) === "local" ? "local" : "utc",
  set: (name) => localStorage.setItem(KEY, name),
};

/** Returns "UTC", or the name of the local time zone without an offset, which varies over the year. */
export const zoneLabel = () => (zone.get() === "utc" ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone);

/** Returns "UTC", or the name and current offset of the local time zone. */
export function zoneName() {
  if (zone.get() === "utc") return "UTC";
  return `${Intl.DateTimeFormat().resolvedOptions().timeZone}, ${offset(new Date())}`;
}

function offset(date) {
  const minutes = -date.getTimezoneOffset();
  const two = (n) => String(Math.floor(Math.abs(n))).padStart(2, "0");
  return `UTC${minutes < 0 ? "−" : "+"}${two(minutes / 60)}:${two(minutes % 60)}`;
}

const two = (n) => String(n).padStart(2, "0");

/** Returns day and time of day in the selected zone, and the fraction of the second as recorded. */
export function parts(text) {
  const fraction = /\.(\d+)/.exec(text)?.[1] ?? "";
  if (zone.get() === "utc") return { day: text.slice(0, 10), time: text.slice(11, 19), fraction };
  const date = new Date(text);
  return {
    day: `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
    time: `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
    fraction,
  };
}

/** Formats a time for use in a sentence: `2026-04-15 14:32:07 UTC`. */
export function moment(text, { millis = false } = {}) {
  if (!text) return "unknown";
  if (text.startsWith("9999")) return "now";
  if (text.startsWith("0001")) return "the beginning";
  const { day, time, fraction } = parts(text);
  const name = zone.get() === "utc" ? "UTC" : offset(new Date(text));
  return `${day} ${time}${millis ? `.${fraction.slice(0, 3)}` : ""} ${name}`;
}

/** Returns a time in UTC, in local time and relative to now, for a tooltip. */
export function everything(text) {
  const local = new Date(text);
  return `${text} (UTC)\n${local.toLocaleString()} (${Intl.DateTimeFormat().resolvedOptions().timeZone})\n${ago(text)}`;
}

/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

/** Returns a time relative to now, such as "3 minutes ago". */
export function ago(text, now = Date.now()) {
  return distance((new Date(text).getTime() - now) / 1000);
}

function distance(seconds) {
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  for (const [unit, size] of UNITS) {
    if (Math.abs(seconds) >= size || unit === "second") return words.format(Math.round(seconds / size), unit);
  }
  return "";
}

/** Returns microseconds since 1970; a JavaScript `Date` has only milliseconds. */
export function micros(text) {
  const fraction = (/\.(\d+)/.exec(text)?.[1] ?? "").padEnd(6, "0").slice(0, 6);
  return Math.floor(new Date(`${text.slice(0, 19)}Z`).getTime() / 1000) * 1e6 + Number(fraction);
}

/** Converts microseconds to RFC 3339, as the API expects. */
export function fromMicros(value) {
  const seconds = new Date(Math.floor(value / 1e6) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(Math.floor(value % 1e6)).padStart(6, "0")}Z`;
}

/** Returns the smallest bucket width that gives at most `most` buckets. */
export function bucketFor(seconds, most = 90) {
  const widths = [1, 5, 15, 60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800];
  return widths.find((width) => seconds / width <= most) ?? 2_592_000;
}

/** Formats seconds as a duration, as the API expects. */
export const widthText = (seconds) =>
  seconds % 86_400 === 0
    ? `${seconds / 86_400}d`
    : seconds % 3_600 === 0
      ? `${seconds / 3_600}h`
      : seconds % 60 === 0
        ? `${seconds / 60}m`
        : `${seconds}s`;
