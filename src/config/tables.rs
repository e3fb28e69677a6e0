//! The keys of `config.ini`, `group.N.genesis` and `group.N.ini` (`spec/client-protocol.md` 7.2 to 7.4) and our own additions in
//! `[millrace]` and `[evm]`. Ranges are those of 2.x where it has one; see [`super::schema`] for how they are applied.

use millrace_administration::pbft::WINDOW;
use millrace_base::limits::LEAST_KEPT_BLOCKS;

use super::schema::{Effect, Form, Key, Section};

const DIRECT: &str = "messages go to those who need them, once";
const PULLED: &str = "what is missing is asked for at once, from several nodes in turn";
const SYNC_ADAPTS: &str = "sync sizes its requests by what peers deliver";
const ENGINE: &str = "the storage engine decides by itself";
const LOGS: &str = "log lines have one fixed layout and are always flushed";
const ADAPTS: &str = "Millrace sizes its threads by cores";

const fn used(name: &'static str, form: Form) -> Key {
    Key { name, form, effect: Effect::Used }
}

const fn idle(name: &'static str, form: Form, why: &'static str) -> Key {
    Key { name, form, effect: Effect::None(why) }
}

const fn number(min: u64, max: u64, unit: &'static str) -> Form {
    Form::Number { min, max, unit }
}

const fn section(name: &'static str, keys: &'static [Key]) -> Section {
    Section { name, old_name: None, keys }
}

const PORT: Form = number(1, 65_535, "port");
const THREADS: Form = number(1, 1_024, "threads");
const RATE: Form = number(1, 1_000_000_000, "a second");
const MEBIBYTES: Form = number(1, 1 << 20, "MB");
const LACKING_FLAG: Form = Form::Choice { supported: &["false", "0"], lacking: &["true", "1"] };

/// Largest value a 2.x node can hold in its signed 64-bit settings.
const MAX_SETTING: u64 = i64::MAX as u64;

/// `config.ini`.
pub const NODE: &[Section] = &[
    section(
        "rpc",
        &[
            used("listen_ip", Form::Ip),
            used("channel_listen_ip", Form::Ip),
            used("channel_listen_port", PORT),
            used("jsonrpc_listen_ip", Form::Ip),
            used("jsonrpc_listen_port", PORT),
            used("channel_thread_count", THREADS),
            used("jsonrpc_thread_count", THREADS),
            used("act_as_group_member", Form::Flag),
            used("disable_dynamic_group", Form::Flag),
        ],
    ),
    section(
        "p2p",
        &[
            used("listen_ip", Form::Ip),
            used("listen_port", PORT),
            used("node.N", Form::HostPort),
            used("enable_compress", Form::Flag),
            idle("connection_warning", Form::Flag, "connections that fail are always logged"),
            used("peers_param_limit", number(1, 1_000, "peers")),
            used("max_nodes_limit", number(1, 10_000, "peers")),
        ],
    ),
    Section { name: "certificate_blacklist", old_name: Some("crl"), keys: &[used("crl.N", Form::NodeId)] },
    Section { name: "certificate_whitelist", old_name: Some("cal"), keys: &[used("cal.N", Form::NodeId)] },
    section("group", &[used("group_data_path", Form::Text), used("group_config_path", Form::Text)]),
    Section {
        name: "network_security",
        old_name: Some("secure"),
        keys: &[
            used("data_path", Form::Text),
            used("key", Form::Text),
            used("cert", Form::Text),
            used("ca_cert", Form::Text),
            idle("ca_path", Form::Text, "the chain has one authority, in ca_cert"),
            used("check_cert_issuer", Form::Flag),
            idle("crypto_provider", Form::Choice { supported: &["ssm"], lacking: &["hsm"] }, "only keys in files are supported"),
            idle("key_id", Form::Text, "only keys in files are supported"),
            idle("enckey_id", Form::Text, "only keys in files are supported"),
            idle("en_key", Form::Text, "only the standard cryptography is supported"),
            idle("en_cert", Form::Text, "only the standard cryptography is supported"),
        ],
    },
    Section {
        name: "storage_security",
        old_name: Some("data_secure"),
        keys: &[
            used("enable", LACKING_FLAG),
            idle("key_manager_ip", Form::Text, "disk encryption is off"),
            idle("key_manager_port", PORT, "disk encryption is off"),
            idle("cipher_data_key", Form::Text, "disk encryption is off"),
        ],
    },
    section(
        "chain",
        &[
            used("id", number(0, MAX_SETTING, "chain id")),
            used("sm_crypto", LACKING_FLAG),
            used("sm_crypto_channel", LACKING_FLAG),
            idle("rsa_crypto_channel", Form::Flag, "the channel port always uses the certificates in channel_cert"),
        ],
    ),
    section("compatibility", &[used("supported_version", Form::Text)]),
    section(
        "log",
        &[
            used("enable", Form::Flag),
            used("log_path", Form::Text),
            used("level", Form::Choice { supported: &["trace", "debug", "info", "warning", "error", "fatal"], lacking: &[] }),
            used("max_log_file_size", number(1, 1 << 20, "MB")),
            used("enable_console_output", Form::Flag),
            idle("enable_statistic", Form::Flag, "figures are served at /metrics of the operator port"),
            idle("stat_flush_interval", number(1, 86_400, "seconds"), "figures are served at /metrics of the operator port"),
            idle("flush", Form::Flag, LOGS),
            idle("format", Form::Text, LOGS),
            idle("log_name_pattern", Form::Text, LOGS),
            idle("rotate_name_pattern", Form::Text, LOGS),
            idle("enable_rotate_by_hour", Form::Flag, "log files change every hour and when they are full"),
            idle("archive_path", Form::Text, "log files are kept where they are"),
            idle("compress_archive_file", Form::Flag, "log files are kept where they are"),
            idle("max_archive_size", MEBIBYTES, "log files are kept where they are"),
            idle("max_archive_files", number(0, 1 << 20, "files"), "log files are kept where they are"),
            idle("min_free_space", number(0, 1 << 40, "bytes"), "log files are kept where they are"),
        ],
    ),
    section(
        "flow_control",
        &[used("limit_req", RATE), used("outgoing_bandwidth_limit", Form::Fraction { min_thousandths: 1, max_thousandths: 1 << 40 })],
    ),
    section(
        "millrace",
        &[
            used("operator_listen_ip", Form::Ip),
            used("operator_listen_port", PORT),
            used("durability", Form::Choice { supported: &["power", "process"], lacking: &[] }),
            used("verify_threads", THREADS),
            used("execute_threads", THREADS),
            used("parallel_threads", THREADS),
            used("cache_mb", number(8, 1 << 20, "MB")),
            used("log_format", Form::Choice { supported: &["text", "json"], lacking: &[] }),
            used("pin_cores", Form::Flag),
            used("window", number(1, WINDOW, "heights")),
            used("allow_readable_keys", Form::Flag),
        ],
    ),
];

/// `group.N.genesis`.
pub const GENESIS: &[Section] = &[
    section(
        "consensus",
        &[
            used("consensus_type", Form::Choice { supported: &["pbft", "raft"], lacking: &["rpbft"] }),
            used("max_trans_num", number(1, MAX_SETTING, "transactions a block")),
            used("consensus_timeout", number(3, 4_294_966, "seconds")),
            used("node.N", Form::NodeId),
            idle("epoch_sealer_num", number(1, MAX_SETTING, "sealers"), "it belongs to rpbft"),
            idle("epoch_block_num", number(1, MAX_SETTING, "blocks"), "it belongs to rpbft"),
            used("min_elect_time", number(20, 3_600_000, "ms")),
            used("max_elect_time", number(21, 7_200_000, "ms")),
        ],
    ),
    section("state", &[used("type", Form::Choice { supported: &["storage", "mpt"], lacking: &[] })]),
    section("tx", &[used("gas_limit", number(100_000, MAX_SETTING, "gas"))]),
    section("group", &[used("id", number(1, 32_767, "group id")), used("timestamp", number(0, MAX_SETTING, "ms since 1970"))]),
    section("evm", &[used("enable_free_storage", Form::Flag), used("rules", Form::Text)]),
    section(
        "event_filter",
        &[
            used("max_block_range", number(0, MAX_SETTING, "blocks")),
            idle("max_block_per_process", number(1, 1_000, "blocks"), "subscriptions take turns of a fixed number of blocks"),
        ],
    ),
];

/// `group.N.ini`.
const FIXED_SIZE: &str = "a block holds what waits, up to the group's tx_count_limit";

pub const GROUP: &[Section] = &[
    section(
        "consensus",
        &[
            used("min_block_generation_time", number(0, 4_294_966_000, "ms")),
            idle("enable_dynamic_block_size", Form::Flag, FIXED_SIZE),
            idle("block_size_increase_ratio", Form::Fraction { min_thousandths: 1, max_thousandths: 10_000 }, FIXED_SIZE),
            idle("ttl", number(0, 5, "hops"), DIRECT),
            idle("enable_ttl_optimization", Form::Flag, DIRECT),
            idle("enable_prepare_with_txsHash", Form::Flag, "proposals always carry hashes only"),
            idle("broadcast_prepare_by_tree", Form::Flag, DIRECT),
            idle("prepare_status_broadcast_percent", number(25, 100, "percent"), DIRECT),
            idle("max_request_missedTxs_waitTime", number(5, 1_000, "ms"), PULLED),
            idle("max_request_prepare_waitTime", number(10, 1_000, "ms"), PULLED),
        ],
    ),
    section(
        "storage",
        &[
            used("type", Form::Choice { supported: &["rocksdb", "mysql"], lacking: &["external", "scalable"] }),
            idle("topic", Form::Text, "it belongs to external storage"),
            idle("max_retry", number(0, 1 << 32, "tries"), "a group waits for its database for as long as that takes"),
            idle("max_capacity", MEBIBYTES, "all groups share millrace.cache_mb of config.ini"),
            idle("cached_storage", Form::Flag, ENGINE),
            idle("binary_log", Form::Flag, ENGINE),
            idle("scroll_threshold_multiple", number(1, 1 << 32, "blocks"), "it belongs to scalable storage"),
            idle("max_forward_block", number(1, 1 << 32, "blocks"), ENGINE),
            used("db_type", Form::Choice { supported: &["mysql"], lacking: &[] }),
            used("db_ip", Form::Text),
            used("db_port", PORT),
            used("db_username", Form::Text),
            used("db_passwd", Form::Text),
            used("db_name", Form::Text),
            idle("db_charset", Form::Text, "tables name their own character sets"),
            idle("init_connections", number(1, 10_000, "connections"), "connections are opened as they are needed"),
            used("max_connections", number(1, 10_000, "connections")),
        ],
    ),
    section(
        "tx_pool",
        &[
            used("limit", number(1, 10_000_000, "transactions")),
            used("memory_limit", MEBIBYTES),
            used("txs_expiration_time", number(1, 31_536_000, "seconds")),
            idle("notify_worker_num", THREADS, ADAPTS),
        ],
    ),
    section(
        "sync",
        &[
            idle("idle_wait_ms", number(1, 60_000, "ms"), SYNC_ADAPTS),
            idle("send_txs_by_tree", Form::Flag, DIRECT),
            idle("sync_block_by_tree", Form::Flag, DIRECT),
            idle("gossip_interval_ms", number(1_000, 3_000, "ms"), SYNC_ADAPTS),
            idle("gossip_peers_number", number(1, 10_000, "peers"), SYNC_ADAPTS),
            idle("max_block_sync_memory_size", number(32, 1 << 20, "MB"), SYNC_ADAPTS),
            idle("txs_max_gossip_peers_num", number(1, 10_000, "peers"), DIRECT),
            idle("allow_free_node", Form::Flag, "blocks never go to nodes outside a group"),
            idle("print_info_interval", number(1, 86_400, "seconds"), "figures are served at /metrics of the operator port"),
        ],
    ),
    section(
        "flow_control",
        &[
            used("limit_req", RATE),
            idle(
                "outgoing_bandwidth_limit",
                Form::Fraction { min_thousandths: 1, max_thousandths: 1 << 40 },
                "groups share the outgoing queues fairly",
            ),
        ],
    ),
    section("sdk_allowlist", &[used("public_key.N", Form::SdkKey)]),
    section("millrace", &[used("keep_blocks", number(LEAST_KEPT_BLOCKS, MAX_SETTING, "blocks"))]),
    section("tx_execute", &[idle("enable_parallel", Form::Flag, "the scheduler decides block by block; results are the same")]),
];
