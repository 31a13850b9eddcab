"""What runs inside Redis to erase: marks, what is found of a row, and its removal. See `scripts` for the guard.

A tombstone is a hash of a row's slice, under its digest: `until` and `asked` as ordered bytes, and `row`, the entity,
while there is one of that key again. Behind it lies the set of references to what was the row's own.
"""

from __future__ import annotations

from typing import Final

from temporal_graph.redis.scripts import GUARD, SAME_GRAPH, Script

# Whether what says an erasure may say the next one; `must` is '' for any earlier one.
_MAY_SAY = """
local ANOTHER = 'ERASING is another by now'
local function may_say(key, must, shall)
  local held = redis.call('HGET', key, 'erasures') or '0'
  if held == shall or held == must then return true end
  return must == '' and math.abs(tonumber(held)) <= math.abs(tonumber(shall))
end
"""

SET_ERASURES: Final = Script.of(
    # item: account, graph, which erasure it must say ('': any earlier one), which it shall: less than 0 at work
    SAME_GRAPH
    + _MAY_SAY
    + """
if not may_say(ARGV[1], ARGV[3], ARGV[4]) then return redis.error_reply(ANOTHER) end
return {redis.call('HSET', ARGV[1], 'erasures', ARGV[4])}
""",
    writes=True,
)

BEAT: Final = Script.of(
    # item: account, how much to add -> {the last erasure, how often one that is at work has said so}
    """
return {{redis.call('HGET', ARGV[1], 'erasures') or '0', redis.call('HINCRBY', ARGV[1], 'beats', ARGV[2])}}
""",
    writes=True,
)

LOCK: Final = Script.of(
    # item: fence, which erasure it must say ('': any earlier one), which it shall: less than 0, and nobody else writes
    _MAY_SAY
    + """
for i = 1, #ARGV, 3 do
  if redis.call('EXISTS', ARGV[i]) == 0 then return redis.error_reply('LOST a slice of the graph is gone') end
  if not may_say(ARGV[i], ARGV[i + 1], ARGV[i + 2]) then return redis.error_reply(ANOTHER) end
end
local out = {}
for i = 1, #ARGV, 3 do out[#out + 1] = redis.call('HSET', ARGV[i], 'erasures', ARGV[i + 2]) end
return out
""",
    writes=True,
)

LOOK: Final = Script.each(
    # item: tombstone -> {until, asked, row}, each false where it has none
    1,
    "redis.call('HMGET', ARGV[i], 'until', 'asked', 'row')",
    writes=False,
)

OWNED: Final = Script.each(
    # item: the set of what was a row's own -> references
    1,
    "redis.call('SMEMBERS', ARGV[i])",
    writes=False,
)

ROWS: Final = Script.each(
    # item: row -> its frames; false where there is none
    1,
    "redis.call('GET', ARGV[i])",
    writes=False,
)

ENTRIES: Final = Script.each(
    # item: list, where to begin ('-', or '(' and the last one's bytes), how many -> entries
    3,
    "redis.call('ZRANGE', ARGV[i], ARGV[i + 1], '+', 'BYLEX', 'LIMIT', 0, ARGV[i + 2])",
    writes=False,
)

OWN: Final = Script.guarded(
    # item: the set of what was a row's own, reference
    2,
    "redis.call('SADD', ARGV[i], ARGV[i + 1])",
)

# A row that has no versions and that no list is left of is nothing: neither its key stays, nor its name.
_BURY = """
local function bury(row, tombstone, links)
  if (redis.call('GET', row) or '') ~= '' then return 0 end
  for l = 1, #links do
    if redis.call('EXISTS', row .. string.sub(links, l, l)) == 1 then return 0 end
  end
  redis.call('HDEL', tombstone, 'row')
  return redis.call('DEL', row)
end
"""

REWRITE: Final = Script.of(
    # item: row, its frames from now on, its tombstone, the links that may have lists of it -> 1 where its key is gone
    "local step = 4\n"
    + GUARD
    + _BURY
    + """
local out = {}
for i = first, #ARGV, 4 do
  if ARGV[i + 1] ~= '' or redis.call('EXISTS', ARGV[i]) == 1 then redis.call('SET', ARGV[i], ARGV[i + 1]) end
  out[#out + 1] = bury(ARGV[i], ARGV[i + 2], ARGV[i + 3])
end
return out
""",
    writes=True,
)

REMOVE_CHILDREN: Final = Script.of(
    # item: list, member, tombstone of the list's row, the links that may have lists of it
    # -> {1 where the member was there, 1 where the row's key is gone}
    "local step = 4\n"
    + GUARD
    + _BURY
    + """
local out = {}
for i = first, #ARGV, 4 do
  local was = redis.call('ZREM', ARGV[i], ARGV[i + 1])
  out[#out + 1] = {was, bury(string.sub(ARGV[i], 1, -2), ARGV[i + 2], ARGV[i + 3])}
end
return out
""",
    writes=True,
)
