/** How containers have ended, or what they wait for, and how often they were started again in the time shown. */
export function ended(matchers: string): string {
  return `
    max by (namespace, pod, container, reason, exit_code) (
      (sidelight_container_last_terminated{${matchers}} or sidelight_container_waiting{${matchers}})
      * on (namespace, pod, container) group_left ()
      max by (namespace, pod, container) (increase(sidelight_container_restarts_total{${matchers}}[$__range]))
    )
  `;
}
