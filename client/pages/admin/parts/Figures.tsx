import { count, ms, shortTime } from "../format.js";
import { added, quantile, redisLinks, sum, type Counters, type Instance, type Point } from "../stats.js";

const MINUTE = 30; // answers, one every two seconds

function perSecond(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  return value >= 100 ? count(Math.round(value)) : value.toFixed(1);
}

/** The numbers to look at first. */
export function Figures({ instances, points }: { instances: Instance[]; points: (Point | null)[] }) {
  const newest = points.at(-1);
  const latency = points.slice(-MINUTE).reduce<Counters>((all, point) => added(all, point?.latency ?? {}), {});
  const { up, of } = redisLinks(instances);
  const reloads = instances.map((one) => one.stats.manager_info.last_reload).filter((one) => one !== null);
  const reload = reloads.sort((a, b) => (a.at < b.at ? 1 : -1))[0];
  const figures: [string, string, (string | undefined)?][] = [
    ["devices", count(newest?.connections)],
    ["users", count(newest?.users)],
    ["messages in", perSecond(newest?.received), "a second"],
    ["messages out", perSecond(newest?.delivered), "a second"],
    ["slow readers", count(sum(instances, (s) => s.statistics.messages.devices_lagging)), "now"],
    ["delivery p50", ms(quantile(latency, 0.5)), "of the last minute"],
    ["delivery p99", ms(quantile(latency, 0.99)), "of the last minute"],
    ["Redis links", `${up} of ${of}`, "up"],
    ["workers that died", count(sum(instances, (s) => s.workers.reduce((n, w) => n + w.restarts, 0)))],
    ["last reload", reload ? (reload.ok ? "done" : "refused") : "none yet", reload && shortTime(reload.at)],
  ];
  return (
    <dl className="figures">
      {figures.map(([name, value, note]) => (
        <div key={name} className="figure">
          <dt>{name}</dt>
          <dd>{value}{note && <span className="note">{note}</span>}</dd>
        </div>
      ))}
    </dl>
  );
}
