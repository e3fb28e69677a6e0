# The line that run.sh appends for a run; perf/README.md says what each field means.
def round2: if . == null then null else . * 100 | round / 100 end;
def growth($pair; $index): if $pair[0][$index] == null or $pair[1][$index] == null then null else $pair[1][$index] - $pair[0][$index] end;
def latency: { p50: .p50_ms, p90: .p90_ms, p99: .p99_ms, "p99.9": .p99_9_ms };
def part: { tps, steady_tps, committed, latency_ms: latency, longest_gap_ms };
$load[0] as $result
| ($result.recovery_us // null) as $recovery
| [range($nodes) as $index | $ticks[$index] / $hertz | {
    cpu_s: .,
    cpu_percent: (. * 100000 / $window_ms | round2),
    cpu_us_per_tx: (if $transactions > 0 then . * 1000000 / $transactions | round2 else null end),
    recoveries_per_tx: (if $transactions > 0 and $recovery != null then . * 1000000 / $transactions / $recovery | round2 else null end),
    loaded_cpu_us_per_tx: $result.nodes[$index].cpu_us_per_tx,
    loaded_recoveries_per_tx: $result.nodes[$index].recoveries_per_tx,
    messages_per_s: (growth($messages; $index) | if . == null then null else . * 1000 / $window_ms | round2 end),
    view_changes: growth($views; $index),
    submitted: $result.nodes[$index].submitted,
    errors: $result.nodes[$index].errors,
    outages: $result.nodes[$index].outages
}] as $per_node
| {
    time: $time,
    commit: (if $commit == "" then null else $commit end),
    dirty: $dirty,
    binary_older_than_commit: $older,
    machine: $machine,
    scenario: $scenario,
    parameters: {
        nodes: $nodes, groups: $groups, workload: $workload, transport: $transport, count: $count,
        rate: (if $rate == 0 then null else $rate end), connections: $connections, batch: $batch, in_flight: $in_flight,
        durability: $durability, state: $state, accounts: $accounts, duration_s: (if $duration == 0 then null else $duration end),
        window: (if $window == 0 then null else $window end), delay_ms: $delay
    },
    outcome: $outcome,
    tps: $result.tps,
    steady_tps: $result.steady_tps,
    seconds: $result.seconds,
    committed: $result.committed,
    latency_ms: ($result | latency),
    longest_gap_ms: $result.longest_gap_ms,
    per_group: ($result.per_group | if . == null then null else map_values(part) end),
    doors: ($result.doors | if . == null then null else map_values(part + {
        ack_p50_ms, ack_p99_ms, pushed, cpu_us_per_tx: .nodes[0].cpu_us_per_tx, recoveries_per_tx: .nodes[0].recoveries_per_tx
    }) end),
    node_transactions: $transactions,
    node_cpu_us_per_tx: (if $transactions > 0 then [$per_node[].cpu_us_per_tx] | add / length * 10 | round / 10 else null end),
    recover_us: ($recovery | round2),
    data_bytes: $data,
    data_bytes_per_tx: (if $transactions > 0 then $data / $transactions | round2 else null end),
    nodes: $per_node,
    other_cpu_s: ($others * 100 / $hertz | round / 100),
    stages_s: $stages,
    checks: ($result.checks | if . == null then null else { receipts, balances, nodes, heights_compared, findings } end),
    failed: $result.failed,
    refused: $result.refused,
    unknown: $result.unknown,
    resent: $result.resent,
    errors: $result.errors,
    faults: $result.faults,
    statuses: $result.statuses
}
