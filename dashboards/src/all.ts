import type { Dashboard } from "./dashboard.js";
import { AGENT_DASHBOARD } from "./dashboards/agent.js";
import { INJECTOR_DASHBOARD } from "./dashboards/injector.js";
import { LOGS_DASHBOARD } from "./dashboards/logs.js";
import { RUST_SERVICES as RUST_SERVICES_DASHBOARD } from "./dashboards/rust-services.js";
import type { RuleFile } from "./rules.js";
import { AGENT_RULES } from "./rules/agent.js";
import { INJECTOR_RULES } from "./rules/injector.js";
import { RUST_SERVICES as RUST_SERVICES_RULES } from "./rules/rust-services.js";

export const DASHBOARDS: Dashboard[] = [RUST_SERVICES_DASHBOARD, LOGS_DASHBOARD, AGENT_DASHBOARD, INJECTOR_DASHBOARD];
export const RULES: RuleFile[] = [RUST_SERVICES_RULES, AGENT_RULES, INJECTOR_RULES];
