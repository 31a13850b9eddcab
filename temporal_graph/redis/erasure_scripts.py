"""What runs inside Redis to erase: marks, what is found of a row, and its removal. See `scripts` for the guard.

A tombstone is a hash of a row's slice, under its digest: `until` and `asked` as ordered bytes, and `row`, the entity,
while there is one of that key again. Behind it lies the set of references to what was the row's own.
"""

from __future__ import annotations

from typing import Final

from temporal_graph.redis.scripts import GUARD, Script

SET_ERASURES: Final = Script.of(
    # item: account, graph, which erasure it must say ('': any earlier one), which it shall: less than 0 at work
    """
if redis.call('HGET', ARGV[1], 'graph') ~= ARGV[2] then return redis.error_reply('LOST the graph was begun anew') end
local held, must, shall = redis.call('HGET', ARGV[1], 'erasures') or '0', ARGV[3], ARGV[4]
if held ~= shall and held ~= must and (must ~= '' or math.abs(tonumber(held)) > math.abs(tonumber(shall))) then
  return redis.error_reply('ERASING is another by now')
end
return {redis.call('HSET', ARGV[1], 'erasures', shall)}
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
    """
for i = 1, #ARGV, 3 do
  if redis.call('EXISTS', ARGV[i]) == 0 then return redis.error_reply('LOST a slice of the graph is gone') end
  local held, must, shall = redis.call('HGET', ARGV[i], 'erasures') or '0', ARGV[i + 1], ARGV[i + 2]
  if held ~= shall and held ~= must and (must ~= '' or math.abs(tonumber(held)) > math.abs(tonumber(shall))) then
    return redis.error_reply('ERASING is another by now')
  end
end
local out = {}
for i = 1, #ARGV, 3 do out[#out + 1] = redis.call('HSET', ARGV[i], 'erasures', ARGV[i + 2]) end
return out
""",
    writes=True,
)

LOOK: Final = Script.of(
    # item: tombstone -> {until, asked, row}, each false where it has none
    """
local out = {}
for i = 1, #ARGV do out[#out + 1] = redis.call('HMGET', ARGV[i], 'until', 'asked', 'row') end
return out
""",
    writes=False,
)

OWNED: Final = Script.of(
    # item: the set of what was a row's own -> references
    """
local out = {}
for i = 1, #ARGV do out[#out + 1] = redis.call('SMEMBERS', ARGV[i]) end
return out
""",
    writes=False,
)

ROWS: Final = Script.of(
    # item: row -> its frames; false where there is none
    """
local out = {}
for i = 1, #ARGV do out[#out + 1] = redis.call('GET', ARGV[i]) end
return out
""",
    writes=False,
)

ENTRIES: Final = Script.of(
    # item: list, where to begin ('-', or '(' and the last one's bytes), how many -> entries
    """
local out = {}
for i = 1, #ARGV, 3 do
  out[#out + 1] = redis.call('ZRANGE', ARGV[i], ARGV[i + 1], '+', 'BYLEX', 'LIMIT', 0, ARGV[i + 2])
end
return out
""",
    writes=False,
)

MARK: Final = Script.of(
    # item: tombstone, its field, value
    "local step = 3\n"
    + GUARD
    + """
local out = {}
for i = first, #ARGV, 3 do out[#out + 1] = redis.call('HSET', ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
return out
""",
    writes=True,
)

OWN: Final = Script.of(
    # item: the set of what was a row's own, reference
    "local step = 2\n"
    + GUARD
    + """
local out = {}
for i = first, #ARGV, 2 do out[#out + 1] = redis.call('SADD', ARGV[i], ARGV[i + 1]) end
return out
""",
    writes=True,
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
