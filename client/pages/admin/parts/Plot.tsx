// A live plot by uPlot, as wide as its place.

import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export interface Line {
  label: string;
  color: string;
  values: (number | null)[];
}

const HEIGHT = 160;

function axes(): uPlot.Axis[] {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--soft").trim() || "#888";
  const grid = { stroke: "rgb(128 128 128 / 0.15)", width: 1 };
  const common = { stroke: () => resolve(ink), grid, ticks: { show: false }, font: "12px system-ui" };
  const clock = uPlot.fmtDate("{HH}:{mm}:{ss}");
  const times: uPlot.Axis = {
    ...common,
    space: 80,
    size: 30,
    values: (_, ticks) => ticks.map((at) => clock(new Date(at * 1000))),
  };
  return [times, { ...common, size: 56 }];
}

/** Canvas knows no light-dark(): what it comes to here. */
function resolve(color: string): string {
  const probe = document.createElement("span");
  probe.style.color = color;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

export function Plot(props: { title: string; note: string; times: number[]; lines: Line[] }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const { times, lines } = props;
  const names = lines.map((line) => line.label + line.color).join();

  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const made = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false },
        scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] } },
        axes: axes(),
        series: [
          {},
          ...lines.map((line) => ({
            label: line.label,
            stroke: () => resolve(line.color),
            width: 2,
            points: { show: false },
          })),
        ],
      },
      [[]],
      element,
    );
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    watch.observe(element);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
    // The lines' values come by setData below.
  }, [names]);

  useEffect(() => {
    plot.current?.setData([times, ...lines.map((line) => line.values)]);
  });

  const newest = lines.map((line) => `${line.label} ${format(line.values.at(-1))}`).join(", ");
  return (
    <section className="card" aria-label={props.title}>
      <header className="card-head">
        <h2>{props.title}</h2>
        <ul className="legend">
          {lines.map((line) => (
            <li key={line.label}>
              <i style={{ background: line.color }} aria-hidden="true" />
              {line.label} <b>{format(line.values.at(-1))}</b>
            </li>
          ))}
        </ul>
      </header>
      <div ref={place} role="img" aria-label={`${props.title}: now ${newest}`} className="plot" />
      <p className="row-note">{props.note}</p>
    </section>
  );
}

function format(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(value < 1 ? 2 : value < 10 ? 1 : 0);
}
