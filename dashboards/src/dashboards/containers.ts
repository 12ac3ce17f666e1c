// What the agent says of containers that do not run.

import { type AnyPanel, rows } from "../panels.js";

/** A table of how containers have ended, or what they wait for, and how often they were started again in the time shown. */
export function endings(title: string, description: string, matchers: string): AnyPanel {
  const ended = `
    max by (namespace, pod, container, reason, exit_code) (
      (sidelight_container_last_terminated{${matchers}} or sidelight_container_waiting{${matchers}})
      * on (namespace, pod, container) group_left ()
      max by (namespace, pod, container) (increase(sidelight_container_restarts_total{${matchers}}[$__range]))
    )
  `;
  return rows(
    { title, description, unit: "none", width: 12, emptyWhen: "no container has ended, or waits" },
    [
      { title: "Namespace", label: "namespace" },
      { title: "Pod", label: "pod" },
      { title: "Container", label: "container" },
      { title: "Reason", label: "reason" },
      { title: "Exit code", label: "exit_code" },
      { title: "Restarts", expr: ended, decimals: 0 },
    ],
    "Restarts",
  );
}
