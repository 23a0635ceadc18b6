// What a program in TypeScript can rely on: compiled without being run.
import type { components, paths } from "./api";

type Acknowledge = paths["/api/v1/accounts/{account}/identities/{user}/acknowledge"]["post"];
type Answer = Acknowledge["responses"][200]["content"]["application/json"];
type Conflict = Acknowledge["responses"][409]["content"]["application/problem+json"];
type Hold = paths["/api/v1/accounts/{account}/identities/{user}/hold"]["post"];
type Gate = components["schemas"]["GateAnswer"];

const body: Acknowledge["requestBody"]["content"]["application/json"] = { hash: "rHEhX5K/adk=" };
const same: Hold["requestBody"]["content"]["application/json"] = body;
const wait: NonNullable<Acknowledge["parameters"]["query"]>["wait"] = 10;

export function isOpen(identity: Answer, gate: Gate): boolean {
  return !identity.blocking && identity.state === "acknowledged" && gate.reasons.length === 0;
}

export function latest(problem: Conflict): string | null | undefined {
  return problem.identity?.hash;
}

// @ts-expect-error a field that isn't there is an error, so answers are not parsed to nothing
export const nothing = (identity: Answer) => identity.colour;

export const used = [same, wait];
