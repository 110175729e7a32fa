// Numbers and times in words.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const TENTHS = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
const PERCENT = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });

export const whole = (number) => WHOLE.format(number);

/** A number that fits into a card. */
export const short = (number) => (number < 1e6 ? WHOLE : SHORT).format(number);

/** Calls per second: tenths while they matter. */
export const rate = (number) => (number === 0 ? "0" : number < 99.95 ? TENTHS.format(number) : short(number));

/** A share from 0 to 1; never rounded to all or nothing. */
export function share(part) {
  if (part > 0 && part < 0.001) return "< 0.1%";
  if (part > 0.999 && part < 1) return "> 99.9%";
  return PERCENT.format(part);
}

/** Seconds as an age. */
export function age(seconds) {
  if (seconds < 1.5) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${whole(seconds / 86400)} days ago`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en", { hour12: false });
