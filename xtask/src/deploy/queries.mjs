// Reads queries with the grammars of Prometheus' and Grafana's editors, and checks objects of the Prometheus Operator.
// Standard input: {"promql": [QUERY…], "logql": [QUERY…], "monitors": [OBJECT…]}. Standard output: the same keys; of each
// query what it names, of each object what is wrong with it.
import { readFileSync } from "node:fs";
import { parser as promql } from "@prometheus-io/lezer-promql";
import { parser as logql } from "@grafana/lezer-logql";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";

// Every node with its text and the names of those around it, the nearest first; and where the grammar gave up.
function read(parser, text) {
  const found = [];
  let error = null;
  const visit = (node, around, isFirst) => {
    if (node.type.isError) {
      error ??= text.slice(node.from, node.from + 30) || "its end";
    }
    found.push({ name: node.name, text: text.slice(node.from, node.to), around, isFirst });
    for (let child = node.firstChild; child; child = child.nextSibling) {
      visit(child, [node.name, ...around], child.from === node.from);
    }
  };
  visit(parser.parse(text).topNode, [], true);
  return { found, error };
}

const unquoted = (text) => text.slice(1, -1);

function ofPrometheus(text) {
  const { found, error } = read(promql, text);
  const result = { error, selectors: [], labels: [], paths: [], defined: [] };
  for (const { name, text, around } of found) {
    if (name === "VectorSelector") {
      result.selectors.push({ metric: "", labels: [] });
    } else if (name === "Identifier" && around[0] === "VectorSelector") {
      result.selectors.at(-1).metric = text;
    } else if (name === "LabelName" && around.includes("VectorSelector")) {
      result.selectors.at(-1).labels.push(text);
    } else if (name === "LabelName") {
      result.labels.push(text);
    }
  }
  return result;
}

function ofLoki(text) {
  const { found, error } = read(logql, text);
  const result = { error, selectors: [], labels: [], paths: [], defined: [] };
  for (const { name, text, around, isFirst } of found) {
    if (name === "Identifier" && isFirst && ["LabelExtractionExpression", "LabelFormatMatcher"].includes(around[0])) {
      result.defined.push(text);
    } else if (name === "Identifier") {
      result.labels.push(text);
    } else if (name === "String" && around[0] === "LabelExtractionExpression") {
      result.paths.push(unquoted(text));
    } else if (name === "String" && around[0] === "LineFormatExpr") {
      result.labels.push(...[...text.matchAll(/\{\{[^}]*?\.([A-Za-z_]\w*)/g)].map((match) => match[1]));
    }
  }
  return result;
}

function wrong(object) {
  try {
    new PodMonitor(object).validate();
    return null;
  } catch (error) {
    return String(error.message);
  }
}

const asked = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify({
  promql: (asked.promql ?? []).map(ofPrometheus),
  logql: (asked.logql ?? []).map(ofLoki),
  monitors: (asked.monitors ?? []).map(wrong),
}));
