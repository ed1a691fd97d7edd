// Holds the Prometheus operator's custom resources to their own schemas: manifests as a JSON list on stdin, problems on
// stdout, one a line.
import { readFileSync } from "node:fs";
import * as v1 from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

for (const manifest of JSON.parse(readFileSync(0, "utf8"))) {
  const Kind = v1[manifest.kind];
  if (!Kind || manifest.apiVersion !== Kind.apiVersion) {
    console.log(`${manifest.apiVersion} ${manifest.kind}: no such custom resource`);
    continue;
  }
  try {
    new Kind(manifest).validate();
  } catch (error) {
    console.log(`${manifest.kind}: ${error.message}`);
  }
}
