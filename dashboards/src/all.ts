import { RuleFile } from "./rules.js";
import { RUST_SERVICES } from "./rules/rust-services.js";

export const RULES: RuleFile[] = [RUST_SERVICES];
