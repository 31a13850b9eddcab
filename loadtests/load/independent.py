"""The same load by somebody else's generator: k6 with an open loop, h2load with a closed one. Ours must agree.

    requests ─┬─► our senders ─► server ◄─ k6, h2load ◄─┬─ the same requests
              └───────────► one table ◄─────────────────┘

k6 (Go) keeps a schedule of arrivals as ours does, but counts latency from the moment a request really left; so do we,
in `Outcome.service`, and that is what is compared. Sends that found nobody free are dropped and counted by both.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.json_format import MessageToDict

from loadtests.load.clients import Outcome, Request
from loadtests.load.histogram import at_ms
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

PROTOS = Path(__file__).resolve().parents[2] / "protos"
MESSAGES = {"Score": service_pb2.ScoreRequest, "Rank": service_pb2.RankRequest}
H2LOAD_CONNECTIONS = 4
USERS = 24
"""Each of k6's callers is a JavaScript engine with a connection of its own: many take the time of those who call."""
# How far two honest generators may lie apart: their own work for a request differs by tenths of milliseconds, and the
# two runs are not at the same moment of a busy machine.
RATIO_MAX = 1.6
FLOOR_MS = 1.0
ACHIEVED_RATIO_MIN = 0.95

SCRIPT = """
import grpc from 'k6/net/grpc';
import exec from 'k6/execution';
import { Counter } from 'k6/metrics';
const told = JSON.parse(open(__ENV.TOLD));
const client = new grpc.Client();
client.load([told.protos], 'nowgraph/v1/prediction_service.proto');
const failed = new Counter('failed');
export const options = {
  scenarios: { load: {
    executor: 'constant-arrival-rate', rate: told.rate, timeUnit: told.unit, duration: told.seconds + 's',
    preAllocatedVUs: told.users, maxVUs: told.users,
  } },
  summaryTrendStats: ['p(50)', 'p(90)', 'p(99)', 'p(99.9)', 'max', 'count'],
};
let connected = false;
export default () => {
  if (!connected) { client.connect(told.target, { plaintext: true }); connected = true; }
  const one = told.requests[exec.scenario.iterationInTest % told.requests.length];
  const answer = client.invoke(one.method, one.message, { timeout: told.timeout });
  if (answer.status !== grpc.StatusOK) failed.add(1);
};
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a generator says of a run; latencies from the real send, in milliseconds."""

    generator: str
    offered_per_s: float
    achieved_per_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    dropped: int


def ours(outcome: Outcome) -> Measured:
    """Our own account, counted as k6 counts."""
    return Measured(
        "ours",
        outcome.offered_per_s,
        outcome.achieved_per_s,
        at_ms(outcome.service, 50),
        at_ms(outcome.service, 99),
        outcome.failed,
        outcome.dropped,
    )


def k6(
    requests: Sequence[Request], *, rate_per_s: float, seconds: float, timeout_s: float, users: int = USERS
) -> Measured:
    """A constant arrival rate by k6, each of at most `users` callers with a connection of its own."""
    binary = Path(sys.executable).with_name("k6")
    rate = round(rate_per_s * 10)  # its rates are whole numbers
    with TemporaryDirectory() as name:
        folder = Path(name)
        told = {
            "target": requests[0].target,
            "protos": str(PROTOS),
            "rate": rate,
            "unit": "10s",
            "seconds": seconds,
            "timeout": f"{timeout_s}s",
            "users": users,
            "requests": [_told(request) for request in requests],
        }
        (folder / "told.json").write_text(json.dumps(told))
        (folder / "script.js").write_text(SCRIPT)
        command = [str(binary), "run", "--quiet", "--no-usage-report", "--summary-export", str(folder / "summary.json")]
        command += ["--env", f"TOLD={folder / 'told.json'}", str(folder / "script.js")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"k6 ended with {done.returncode}: {done.stderr[-2000:]}")
        metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    latency = metrics["grpc_req_duration"]
    failed = int(metrics.get("failed", {}).get("count", 0))
    answered = int(metrics["iterations"]["count"]) - failed
    dropped = int(metrics.get("dropped_iterations", {}).get("count", 0))
    return Measured("k6", rate / 10, answered / seconds, latency["p(50)"], latency["p(99)"], failed, dropped)


def h2load(request: Request, *, seconds: float, in_flight: int) -> float | None:
    """Answers per second of a closed loop by h2load (nghttp2); None where it is not installed.

    It knows HTTP/2, not gRPC: any answer counts, also one that is an error.
    """
    binary = shutil.which("h2load")
    if binary is None:
        return None
    with TemporaryDirectory() as name:
        body = Path(name) / "request"
        body.write_bytes(b"\0" + len(request.body).to_bytes(4, "big") + request.body)  # gRPC's frame
        command = [binary, "--clients", str(H2LOAD_CONNECTIONS), "-m", str(in_flight // H2LOAD_CONNECTIONS)]
        command += ["--duration", str(round(seconds)), "-d", str(body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        done = subprocess.run(
            [*command, f"http://{request.target}{request.path}"], capture_output=True, text=True, check=True
        )
    found = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", done.stdout)
    if found is None:
        raise RuntimeError(f"h2load said: {done.stdout[-2000:]}")
    return float(found[1])


def agree(one: Measured, other: Measured) -> bool:
    """Whether two accounts of the same load can both be true: rates, p50 and p99 lie together."""
    rates = min(one.achieved_per_s, other.achieved_per_s) >= ACHIEVED_RATIO_MIN * max(
        one.achieved_per_s, other.achieved_per_s
    )
    return rates and _near(one.p50_ms, other.p50_ms) and _near(one.p99_ms, other.p99_ms)


def _near(one_ms: float, other_ms: float) -> bool:
    low, high = sorted((one_ms, other_ms))
    return high <= RATIO_MAX * low + FLOOR_MS


def _told(request: Request) -> dict[str, object]:
    message = MESSAGES[request.method].FromString(request.body)
    return {"method": request.path.removeprefix("/"), "message": MessageToDict(message)}
