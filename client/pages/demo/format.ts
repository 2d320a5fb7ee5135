const MONEY = new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR" });
const WHOLE = new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR", maximumFractionDigits: 0 });
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

export const money = (cents: number) => MONEY.format(cents / 100).replace("-", "−");
export const wholeMoney = (cents: number) => WHOLE.format(cents / 100).replace("-", "−");
export const clock = (iso: string) => TIME.format(new Date(iso));
