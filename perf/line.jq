# The line that run.sh appends for a run; perf/README.md says what each field means.
$load[0] as $result
| {
    time: $time,
    commit: (if $commit == "" then null else $commit end),
    dirty: $dirty,
    binary_older_than_commit: $older,
    machine: $machine,
    scenario: $scenario,
    parameters: {
        groups: $groups, workload: $workload, count: $count, rate: (if $rate == 0 then null else $rate end),
        durability: $durability, accounts: $accounts, duration_s: $duration
    },
    outcome: $outcome,
    tps: $result.tps,
    steady_tps: $result.steady_tps,
    seconds: $result.seconds,
    committed: $result.committed,
    latency_ms: { p50: $result.p50_ms, p90: $result.p90_ms, p99: $result.p99_ms, "p99.9": $result.p99_9_ms },
    node_transactions: $transactions,
    node_cpu_us_per_tx: (if $transactions > 0 then ($ticks * 1000000 / $hertz / $transactions * 10 | round / 10) else null end),
    other_cpu_s: ($others * 100 / $hertz | round / 100),
    stages_s: $stages,
    recover_us: null,
    failed: $result.failed,
    refused: $result.refused,
    unknown: $result.unknown,
    errors: $result.errors,
    faults: $result.faults,
    statuses: $result.statuses
}
