// Numbers, times and durations as text: the forms of Spark's page.

const UNITS = [
  ['days', 86_400_000], ['hrs', 3_600_000], ['min', 60_000], ['sec', 1_000], ['ms', 1], ['us', 1e-3], ['ns', 1e-6],
];

/** What stands where a value is not known. */
export const NONE = '-';

const known = (value) => value !== null && value !== undefined;

/** The unit in which a duration is best read, and the duration in it: 60,000 ms are 1 min. */
export function normalizeDuration(ms) {
  const [unit, size] = UNITS.find(([, size]) => ms >= size && size >= 1) ?? ['ms', 1];
  return { unit, value: ms / size };
}

/** A duration in a unit of `normalizeDuration`, fractions kept: 60,000 ms are 1/60 hrs. */
export function convertToUnit(ms, unit) {
  return ms / UNITS.find(([name]) => name === unit)[1];
}

const two = (number) => String(number).padStart(2, '0');

/** A batch's time, in the browser's own zone: with milliseconds where batches come more often than every second. */
export function formatBatchTime(ms, intervalMs, withDate = true) {
  const time = new Date(ms);
  const date = `${time.getFullYear()}/${two(time.getMonth() + 1)}/${two(time.getDate())}`;
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  const part = intervalMs < 1_000 ? `.${String(time.getMilliseconds()).padStart(3, '0')}` : '';
  return `${withDate ? `${date} ` : ''}${clock}${part}`;
}

/** At most three digits that say something: 0.25, 12.5, 1,234. */
export function formatNumber(value) {
  if (!known(value)) return NONE;
  const digits = Number.isInteger(value) || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString('en-US', { maximumFractionDigits: digits });
}

/** A duration: `873 ms`, `1.25 sec`, `3 min`. */
export function formatDuration(ms) {
  if (!known(ms)) return NONE;
  const { unit, value } = normalizeDuration(ms);
  return `${formatNumber(value)} ${unit}`;
}

/** How long something has been going on, in its two largest units: `2 hrs 5 min`. */
export function formatUptime(ms) {
  const parts = [];
  let rest = Math.max(0, ms);
  for (const [unit, size] of UNITS.slice(0, 4)) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0 && parts.length < 2) parts.push(`${count} ${unit}`);
    else if (parts.length > 0) break;
  }
  return parts.join(' ') || '0 sec';
}

export function formatRecords(records) {
  return known(records) ? `${formatNumber(records)} ${records === 1 ? 'record' : 'records'}` : NONE;
}

/** A rate, with two decimals as Spark has it. */
export function formatRate(rate) {
  const fixed = { minimumFractionDigits: 2, maximumFractionDigits: 2 };
  return known(rate) ? `${rate.toLocaleString('en-US', fixed)} records/sec` : NONE;
}

export function formatBytes(bytes) {
  if (!known(bytes)) return NONE;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let [value, at] = [bytes, 0];
  while (value >= 1_024 && at < units.length - 1) [value, at] = [value / 1_024, at + 1];
  return `${formatNumber(value)} ${units[at]}`;
}

/** A text of at most so many characters, with dots where it was cut. */
export function shortened(text, charactersMax) {
  return text.length <= charactersMax ? text : `${text.slice(0, charactersMax - 3)}...`;
}
