// Small drawings in one stroke, so that the page looks the same whatever fonts there are.

const PATHS = {
  basket: "M4 10h16l-1.600 9H5.600L4 10zm4 0 3-6m5 6-3-6",
  bowl: "M4 11h16a8 8 0 0 1-5 7.400V20H9v-1.600A8 8 0 0 1 4 11zm5-3c0-2 1-2 1-4m4 4c0-2 1-2 1-4",
  bicycle: "M6 20a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zm12 0a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zM6 16.500 9.500 9H15m3 7.500L14.500 6H17M9.500 9l3.500 7",
  music: "M9 18V6l10-2v12M9 18a2.500 2.500 0 1 1-5 0 2.500 2.500 0 0 1 5 0zm10-2a2.500 2.500 0 1 1-5 0 2.500 2.500 0 0 1 5 0z",
  coin: "M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16zm0-12v8m-3-3 3 3 3-3",
  bulb: "M9 17.500h6M10 20.500h4M12 3.500a6 6 0 0 0-3.500 10.900V15h7v-.6A6 6 0 0 0 12 3.500z",
  loop: "M5 12a7 7 0 0 1 12-5l2 2m0-4.500V9h-4.500M19 12a7 7 0 0 1-12 5l-2-2m0 4.500V15h4.500",
  horn: "M5 10v4h3l8 4V6l-8 4H5zm14 .500v3",
  star: "m12 4 2.400 5 5.600.700-4.100 3.800 1.100 5.500L12 16.300 7 19l1.100-5.500L4 9.700 9.600 9 12 4z",
} as const;

export type IconName = keyof typeof PATHS;

const OF_CATEGORY: Record<string, IconName> = {
  "b-food": "basket",
  "b-out": "bowl",
  "b-move": "bicycle",
  "b-fun": "music",
  "c-in": "coin",
};

export function iconOf(category: string | null | undefined): IconName {
  return OF_CATEGORY[category ?? ""] ?? "coin";
}

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className={`icon ${name}`} viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
