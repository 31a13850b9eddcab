"""What runs inside Redis: each script sees and changes everything that it touches at one moment.

A call names keys of one shard in several slots, which these scripts may (`allow-cross-slot-keys`); Redis itself refuses
a key that the shard does not own, also while slots move. `guarded` ones write nothing unless every slice they touch
still names this writer for every partition of the batch, and was not erased in since the writer looked. Errors begin
with LOST, STALE or ERASING.

The visibility rule of `time_rule.py` is `visible` below: both sides as ordered bytes, read as two halves of 32 bits,
because a Lua number holds no 64; and in lists the order of members, which begin with their time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

LOST: Final = "LOST"
STALE: Final = "STALE"
ERASING: Final = "ERASING"


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script: its arguments are the call's, then those of each item; it replies one value an item."""

    text: bytes
    writes: bool
    sha: bytes

    @classmethod
    def of(cls, body: str, *, writes: bool) -> Script:
        """Return a script with its flags."""
        flags = "allow-cross-slot-keys" if writes else "no-writes,allow-cross-slot-keys"
        text = f"#!lua flags={flags}\n{body}".encode()
        return cls(text, writes, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())

    @classmethod
    def each(cls, step: int, reply: str, *, writes: bool) -> Script:
        """Return a script that replies one Lua expression for each item, the `step` arguments from ARGV[i] on."""
        return cls.of(_each("1", step, reply), writes=writes)

    @classmethod
    def guarded(cls, step: int, reply: str) -> Script:
        """Return a script as `each` does, that writes only where `GUARD` lets it."""
        return cls.of(f"local step = {step}\n{GUARD}{_each('first', step, reply)}", writes=True)


def _each(first: str, step: int, reply: str) -> str:
    return f"""
local out = {{}}
for i = {first}, #ARGV, {step} do out[#out + 1] = {reply} end
return out
"""


FENCE_OF: Final = """
local function fence_of(key) return string.match(key, '^[^}]*}') .. '\\255' end
"""

# ARGV: the erasure that the writer has seen the end of (0: none; less than 0: its own, at work), how many partitions,
# for each its field in a fence and this writer's token; then items of `step` arguments, the first of which is a key.
GUARD: Final = (
    FENCE_OF
    + """
local partitions = tonumber(ARGV[2])
local first = 3 + 2 * partitions
local guarded = {}
for i = first, #ARGV, step do
  local fence = fence_of(ARGV[i])
  if not guarded[fence] then
    for p = 3, first - 1, 2 do
      local held = redis.call('HGET', fence, ARGV[p])
      if not held then return redis.error_reply('LOST a slice of the graph is gone') end
      if held ~= ARGV[p + 1] then return redis.error_reply('STALE another writer has claimed ' .. ARGV[p]) end
    end
    if (redis.call('HGET', fence, 'erasures') or '0') ~= ARGV[1] then
      return redis.error_reply('ERASING a row, or one was erased meanwhile')
    end
    guarded[fence] = true
  end
end
-- A write even where no item is one: WAIT, which asks whether replicas have this, goes by the last write of its
-- connection. What another wrote, and died before a replica had it, would else pass for safe.
if partitions > 0 then redis.call('HSET', fence_of(ARGV[first]), 'begun', 1) end
"""
)

SAME_GRAPH: Final = """
if redis.call('HGET', ARGV[1], 'graph') ~= ARGV[2] then return redis.error_reply('LOST the graph was begun anew') end
"""

APPEND_VERSIONS: Final = Script.of(
    # item: row, frame -> {1 where the frame is new, the row's frames before}
    "local step = 2\n"
    + GUARD
    + """
local out = {}
for i = first, #ARGV, 2 do
  local key, frame = ARGV[i], ARGV[i + 1]
  local row = redis.call('GET', key) or ''
  local at, new = 1, 1
  while at <= #row do
    local size = struct.unpack('>I4', row, at) + 4
    if size == #frame and string.sub(row, at, at + size - 1) == frame then new = 0 break end
    at = at + size
  end
  if new == 1 then redis.call('APPEND', key, frame) end
  out[#out + 1] = {new, row}
end
return out
""",
    writes=True,
)

ADD_CHILDREN: Final = Script.of(
    # item: list, member. The list's row is known from here on, if only by its name.
    "local step = 2\n"
    + GUARD
    + """
local out = {}
for i = first, #ARGV, 2 do
  redis.call('SETNX', string.sub(ARGV[i], 1, -2), '')
  out[#out + 1] = redis.call('ZADD', ARGV[i], 0, ARGV[i + 1])
end
return out
""",
    writes=True,
)

SET_FIELDS: Final = Script.guarded(
    # item: a hash, such as the positions or a tombstone, its field, value
    3,
    "redis.call('HSET', ARGV[i], ARGV[i + 1], ARGV[i + 2])",
)

CLAIM: Final = Script.of(
    # item: fence, partition, token
    """
for i = 1, #ARGV, 3 do
  if redis.call('EXISTS', ARGV[i]) == 0 then return redis.error_reply('LOST a slice of the graph is gone') end
  local held = redis.call('HGET', ARGV[i], ARGV[i + 1])
  if held and tonumber(held) > tonumber(ARGV[i + 2]) then
    return redis.error_reply('STALE another writer has claimed ' .. ARGV[i + 1])
  end
end
local out = {}
for i = 1, #ARGV, 3 do out[#out + 1] = redis.call('HSET', ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
return out
""",
    writes=True,
)

RAISE_FENCES: Final = Script.each(
    # item: fence of a slice that is begun
    1,
    "redis.call('HSET', ARGV[i], 'begun', 1)",
    writes=True,
)

COUNT_FENCES: Final = Script.each(
    # item: fence -> 1 where its slice is there
    1,
    "redis.call('EXISTS', ARGV[i])",
    writes=False,
)

BEGIN: Final = Script.of(
    # item: account, the graph that it is to replace ('': none), the new one, its schema's fingerprint -> which it is
    """
local account, old, new = ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('HGET', account, 'graph') or ''
if held ~= old then return {held} end
redis.call('DEL', account)
redis.call('HSET', account, 'graph', new, 'fingerprint', ARGV[4])
return {new}
""",
    writes=True,
)

EXPECT: Final = Script.of(
    # item: account, graph, positions from which on it serves -> 1 where they are the first that were given
    SAME_GRAPH
    + """
return {redis.call('HSETNX', ARGV[1], 'until', ARGV[3])}
""",
    writes=True,
)

KEEP_TOPIC: Final = Script.of(
    # item: account, graph, topic, its id -> the id that is kept: this one where there was none
    SAME_GRAPH
    + """
redis.call('HSETNX', ARGV[1], 'topic:' .. ARGV[3], ARGV[4])
return {redis.call('HGET', ARGV[1], 'topic:' .. ARGV[3])}
""",
    writes=True,
)

SET_COMPLETE: Final = Script.of(
    # item: account, graph, times, partition, time
    SAME_GRAPH
    + """
local out = {}
for i = 1, #ARGV, 5 do out[#out + 1] = redis.call('HSET', ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]) end
return out
""",
    writes=True,
)

NEXT_TOKEN: Final = Script.of(
    # item: account, graph -> a number greater than any before
    SAME_GRAPH
    + """
return {redis.call('HINCRBY', ARGV[1], 'token', 1)}
""",
    writes=True,
)

ACCOUNT: Final = Script.of(
    # item: account, what the two keys of a graph have before its letters, and each behind them
    # -> {graph, fingerprint, until, positions, times of completeness, erasures}
    """
local held = redis.call('HMGET', ARGV[1], 'graph', 'fingerprint', 'until', 'erasures')
if not held[1] then return {false} end
local graph = ARGV[2] .. held[1]
local positions, complete = redis.call('HGETALL', graph .. ARGV[3]), redis.call('HGETALL', graph .. ARGV[4])
return {{held[1], held[2], held[3], positions, complete, held[4] or '0'}}
""",
    writes=False,
)

READ: Final = Script.of(
    # the erasure that the reader has seen the end of ('': it keeps nothing): all slices say so before a row is touched,
    # so one tells of all of its shard
    # item: row, and as one string the cut-off of its versions, what the reader has of it (uint32 size, and the cut-off
    # up to which), lists (for each: link uint8, uint32 how many, cut-off) -> one string: int32 size (-1: unknown),
    # uint32 size of the frames that the reader lacks, those, for each list uint32 how many, for each entry uint32 size
    # and itself. One string, because a client takes longer to read many short ones than Redis to join them.
    FENCE_OF
    + """
local function visible(high, low, cut_high, cut_low)
  return high < cut_high or (high == cut_high and low <= cut_low)
end
-- What is not there is unknown where its slice is: an older graph's fences are the first of its keys to be dropped.
local function gone(key) return redis.call('EXISTS', fence_of(key)) == 0 end
local LOST = 'LOST a slice of the graph is gone'
if ARGV[1] ~= '' then
  local fence = fence_of(ARGV[2])
  if (redis.call('HGET', fence, 'erasures') or '0') ~= ARGV[1] and redis.call('EXISTS', fence) == 1 then
    return redis.error_reply('ERASING a row, or one was erased meanwhile')
  end
end
local out = {}
for i = 2, #ARGV, 2 do
  local key, want = ARGV[i], ARGV[i + 1]
  local cut_high, cut_low, had, had_high, had_low = struct.unpack('>I4I4I4I4I4', want)
  local size, lacks = redis.call('STRLEN', key), {}
  if size == 0 and redis.call('EXISTS', key) == 0 then
    if gone(key) then return redis.error_reply(LOST) end
    size = -1
  elseif size > had or not visible(cut_high, cut_low, had_high, had_low) then
    local row, at = redis.call('GET', key), 1
    while at <= size do
      local rest, high, low = struct.unpack('>I4I4I4', row, at)
      if visible(high, low, cut_high, cut_low) and not (at <= had and visible(high, low, had_high, had_low)) then
        lacks[#lacks + 1] = string.sub(row, at, at + 3 + rest)
      end
      at = at + 4 + rest
    end
  end
  local frames = table.concat(lacks)
  local reply = {struct.pack('>i4I4', size, #frames), frames}
  for j = 21, #want, 13 do
    local link, count = struct.unpack('>BI4', want, j)
    local newest = '(' .. string.sub(want, j + 5, j + 12) .. '\\255'
    local found = redis.call('ZRANGE', key .. string.char(link), newest, '-', 'BYLEX', 'REV', 'LIMIT', 0, count)
    if #found == 0 and size ~= -1 and gone(key) then return redis.error_reply(LOST) end
    reply[#reply + 1] = struct.pack('>I4', #found)
    for _, entry in ipairs(found) do
      reply[#reply + 1] = struct.pack('>I4', #entry)
      reply[#reply + 1] = entry
    end
  end
  out[#out + 1] = table.concat(reply)
end
return out
""",
    writes=False,
)
