"""Drives python-sdk as its users do and checks what it gives back. Run by tools/clients/python.sh inside a copy of the SDK.

One line a check: PASS, FAIL or SKIP, its name, and for a failure why. The last line is "end".
"""

import argparse
import contextlib
import io
import json
import queue
import random
import sys
import threading
import time

sys.path.insert(0, ".")


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("door", "rpc", "channel", "certificates", "group", "groups", "binary", "abi"):
        parser.add_argument("--" + name, required=True)
    return parser.parse_args()


OPTIONS = arguments()
GROUP = int(OPTIONS.group)
CHECKS = []


def configure():
    """Writes client_config.py from the SDK's own template."""
    host, port = OPTIONS.channel.rsplit(":", 1)
    values = {
        "client_protocol": repr(OPTIONS.door),
        "remote_rpcurl": repr(OPTIONS.rpc),
        "channel_host": repr(host),
        "channel_port": port,
        "channel_ca": repr(OPTIONS.certificates + "/ca.crt"),
        "channel_node_cert": repr(OPTIONS.certificates + "/sdk.crt"),
        "channel_node_key": repr(OPTIONS.certificates + "/sdk.key"),
        "fiscoChainId": "1",
        "groupid": str(GROUP),
    }
    lines = []
    for line in open("client_config.py.template", encoding="utf8").read().split("\n"):
        key = line.split("=")[0].strip()
        if key in values and line.startswith(" "):
            indent = line[: len(line) - len(line.lstrip())]
            line = indent + key + " = " + values[key]
        lines.append(line)
    open("client_config.py", "w", encoding="utf8").write("\n".join(lines))


configure()
from client.bcosclient import BcosClient  # noqa: E402
from client.channelpack import ChannelPack  # noqa: E402
from client.channel_push_dispatcher import ChannelPushHandler  # noqa: E402
from client.datatype_parser import DatatypeParser  # noqa: E402
from client.event_callback import BcosEventCallback, EventCallbackHandler  # noqa: E402
from eth_utils import to_checksum_address  # noqa: E402

if OPTIONS.door == "channel":
    # The SDK registers who waits for an answer only after it has queued the request, and loses answers that are faster. Each request is
    # handed to its queue when its waiter is there; everything else is the SDK as it is.
    from client.channelhandler import ChannelHandler

    SEND = ChannelHandler.send_pack

    def send_when_awaited(self, pack):
        waiter = ChannelHandler.getEmitterStr(self.getResultPrefix, pack.seq, pack.type)
        end = time.time() + 5
        while not self.callbackEmitter.listeners(waiter) and time.time() < end:
            time.sleep(0.0005)
        SEND(self, pack)

    def send_pack(self, pack):
        if pack.type in (ChannelPack.TYPE_RPC, ChannelPack.CLIENT_REGISTER_EVENT_LOG):
            threading.Thread(target=send_when_awaited, args=(self, pack), daemon=True).start()
        else:
            SEND(self, pack)

    ChannelHandler.send_pack = send_pack

CLIENT = BcosClient()
ABI = json.load(open(OPTIONS.abi))
BINARY = open(OPTIONS.binary).read().strip()
STATE = {}


def check(door=None):
    def add(function):
        if door in (None, OPTIONS.door):
            CHECKS.append(function)
        return function

    return add


def quiet(function, *values):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*values)


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def send(function, values):
    receipt = quiet(CLIENT.sendRawTransactionGetReceipt, STATE["token"], ABI, function, values)
    return receipt


def refusal(function, *values):
    try:
        result = function(*values)
    except Exception as error:  # the SDK has several kinds
        return str(error)
    raise AssertionError("accepted: %r" % (result,))


@check()
def version_is_told():
    version = CLIENT.getNodeVersion()
    expect(version["Supported Version"].startswith("2."), version)
    expect(version["Chain Id"] == "1", version)


@check()
def group_is_listed_with_its_sealers():
    expect(GROUP in CLIENT.getGroupList(), "the group is not listed")
    sealers = CLIENT.getSealerList()
    expect(sealers and set(sealers) <= set(CLIENT.getGroupPeers()), sealers)
    expect(len(CLIENT.getConsensusStatus()) == 2, "two elements")
    expect(int(CLIENT.getPbftView(), 16) >= 0, "a number")


@check()
def unknown_things_are_null_or_errors():
    absent = "0x" + "ab" * 32
    expect(CLIENT.getTransactionByHash(absent) is None, "a transaction")
    expect(CLIENT.getTransactionReceipt(absent) is None, "a receipt")
    expect("-40004" in refusal(CLIENT.getBlockByNumber, 10**9), "height")
    expect("-40003" in refusal(CLIENT.getBlockByHash, absent), "hash")
    expect("-40001" in refusal(CLIENT.common_request, "getBlockNumber", [9876]), "group")
    expect("-32601" in refusal(CLIENT.common_request, "noSuchMethod", [GROUP]), "method")


@check()
def contract_is_deployed():
    receipt = quiet(CLIENT.deploy, BINARY, ABI, [])
    expect(receipt["status"] == "0x0", receipt)
    STATE["token"] = to_checksum_address(receipt["contractAddress"])
    STATE["owner"] = receipt["from"]
    expect(len(CLIENT.getCode(receipt["contractAddress"])) > 100, "code")


@check()
def transaction_changes_the_state_and_logs_it():
    owner = to_checksum_address(STATE["owner"])
    receipt = send("mint", [owner, 1000])
    expect(receipt["status"] == "0x0", receipt)
    logs = DatatypeParser(OPTIONS.abi).parse_event_logs([dict(log) for log in receipt["logs"]])
    expect(logs[0]["eventname"] == "Transfer", logs)
    expect(CLIENT.call(STATE["token"], ABI, "balanceOf", [owner])[0] == 1000, "balance")
    STATE["receipt"] = receipt


@check()
def receipt_and_transaction_agree():
    receipt = CLIENT.getTransactionReceipt(STATE["receipt"]["transactionHash"])
    differing = [key for key in receipt if receipt[key] != STATE["receipt"].get(key)]
    expect(not differing, differing)
    transaction = CLIENT.getTransactionByHash(STATE["receipt"]["transactionHash"])
    expect(transaction["blockHash"] == receipt["blockHash"], transaction)
    block = CLIENT.getBlockByHash(receipt["blockHash"], True)
    expect(any(one["hash"] == receipt["transactionHash"] for one in block["transactions"]), "not in its block")


@check()
def reverted_transaction_has_its_status():
    someone = to_checksum_address("0x" + "12" * 20)
    receipt = send("transfer", [someone, 10**6])
    expect(receipt["status"] == "0x16", receipt["status"])
    said = refusal(CLIENT.call, STATE["token"], ABI, "transfer", [someone, 10**6])
    expect("revert" in said.lower(), said)


@check()
def many_transactions_are_all_committed():
    someone = to_checksum_address("0x" + "34" * 20)
    for _ in range(50):
        expect(send("transfer", [someone, 1])["status"] == "0x0", "status")
    expect(CLIENT.call(STATE["token"], ABI, "balanceOf", [someone])[0] == 50, "balance")


@check()
def other_group_has_its_own_blocks():
    others = [int(group) for group in OPTIONS.groups.split(",") if int(group) != GROUP]
    if not others:
        return
    hashes = {group: CLIENT.common_request("getBlockHashByNumber", [group, "0x0"]) for group in others + [GROUP]}
    expect(len(set(hashes.values())) == len(hashes), "the same genesis block")
    found = CLIENT.common_request("getTransactionByHash", [others[0], STATE["receipt"]["transactionHash"]])
    expect(found is None, "a transaction of another group")


@check()
def system_contracts_answer():
    from client.precompile.config.config_precompile import ConfigPrecompile

    config = quiet(ConfigPrecompile, "contracts/precompile")
    limit = 1000 + random.randrange(100)
    quiet(config.setValueByKey, "tx_count_limit", str(limit))
    expect(CLIENT.getSystemConfigByKey("tx_count_limit") == str(limit), "the setting")


@check("channel")
def block_notifications_reach_the_client():
    receipt = send("transfer", [to_checksum_address("0x" + "34" * 20), 1])
    number, end = int(receipt["blockNumber"], 16), time.time() + 10
    while CLIENT.channel_handler.blockNumber < number:
        expect(time.time() < end, "the client still thinks of %d" % CLIENT.channel_handler.blockNumber)
        time.sleep(0.05)


@check("channel")
def event_logs_are_pushed():
    pushed = queue.Queue()

    class Handler(EventCallbackHandler):
        def on_event(self, data):
            pushed.put(data)

    callback = BcosEventCallback()
    callback.setclient(CLIENT)
    parser = DatatypeParser(OPTIONS.abi)
    reply = quiet(callback.register_eventlog_filter, Handler(), parser, [STATE["token"]], "Transfer")
    expect(reply["result"] == 0, reply)
    receipt = send("transfer", [to_checksum_address("0x" + "56" * 20), 7])
    end = time.time() + 10
    while True:
        expect(time.time() < end, "no push")
        with contextlib.suppress(queue.Empty):
            if any(log["transactionHash"] == receipt["transactionHash"] for log in pushed.get(timeout=1)["logs"] or []):
                return


@check("channel")
def message_to_a_topic_comes_back_answered():
    topic, received, answers = "topic-%x" % random.getrandbits(32), queue.Queue(), queue.Queue()
    subscriber = BcosClient()

    class Echo(ChannelPushHandler):
        def on_push(self, message):
            received.put(message)
            body = ChannelPack.pack_amop_topic_message(topic, "echo")
            subscriber.channel_handler.send_pack(ChannelPack(ChannelPack.TYPE_AMOP_RESP, message.seq, 0, body))

    class Answer(ChannelPushHandler):
        def on_push(self, message):
            answers.put(message)

    subscriber.channel_handler.pushDispacher.add_handler(ChannelPack.TYPE_AMOP_REQ, Echo())
    CLIENT.channel_handler.pushDispacher.add_handler(ChannelPack.TYPE_AMOP_RESP, Answer())
    topics = json.dumps(["_block_notify_%d" % GROUP, topic])
    subscriber.channel_handler.send_pack(ChannelPack(ChannelPack.TYPE_TOPIC_REPORT, ChannelPack.make_seq32(), 0, topics))
    time.sleep(0.5)
    body = ChannelPack.pack_amop_topic_message(topic, "hello")
    CLIENT.channel_handler.send_pack(ChannelPack(ChannelPack.TYPE_AMOP_REQ, ChannelPack.make_seq32(), 0, body))
    expect(received.get(timeout=10).data.endswith(b"hello"), "the message")
    answer = answers.get(timeout=10)
    expect(answer.result == 0 and answer.data.endswith(b"echo"), answer.result)
    subscriber.finish()


def main():
    CLIENT.load_default_account()
    for function in CHECKS:
        try:
            function()
            print("PASS", function.__name__, flush=True)
        except Exception as error:
            print("FAIL", function.__name__, type(error).__name__, str(error).replace("\n", " ")[:300], flush=True)
    print("end", flush=True)


main()
# The SDK's threads do not end by themselves.
import os  # noqa: E402

os._exit(0)
