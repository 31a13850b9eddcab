// Takes the sessions of a request, and walks from a seed that has one.
#include "sampler_session.hpp"

#include <algorithm>

#include "sampler.hpp"

namespace nowgraph {

// ---- events to rows -------------------------------------------------------------------------------------------------

void SessionRows::take(const SessionEvents& sessions, u32 edge_type, const i64* asked, const std::vector<Seed>& seeds,
                       const TableRows* tables, const Snapshot& snapshot) {
  const LinkHeader& link = reader_.link(edge_type / 2);
  edge_type_ = edge_type;
  events_ = &sessions.events;
  rows_.clear();
  parents_.clear();
  offset_.assign(1, 0);
  Refusal refusal;
  for (std::size_t s = 0; s < seeds.size(); ++s) {
    const std::size_t first = sessions.offset[s], last = sessions.offset[s + 1];
    if (last - first > SESSION_EVENTS_MAX)
      throw std::invalid_argument("session " + std::to_string(s) + " has " + std::to_string(last - first) +
                                  " events, at most " + std::to_string(SESSION_EVENTS_MAX) + " are taken");
    given_.clear();
    for (std::size_t e = first; e < last; ++e) {
      if (!decoder_.decode(sessions.events[e], change_, refusal) || !check(link, seeds[s], asked[s], tables, refusal))
        throw SessionRefused(s, e - first, refusal);
      const SessionRow row = row_of_change(link, static_cast<u32>(e), tables);
      if (is_known(link, row, seeds[s], tables, snapshot)) continue;
      const KeyValue key = key_of_change(*tables[link.child].header);
      const auto* number = reinterpret_cast<const char*>(&key.number);
      given_.push_back({row, visible_time_us(row.event_time_us, row.known_time_us),
                        key.integer ? std::string(number, sizeof key.number) : std::string(key.bytes)});
    }
    keep_newest_first();
    offset_.push_back(rows_.size());
  }
}

// Whether the decoded change is a row that the question may know and that hangs on its seed.
bool SessionRows::check(const LinkHeader& link, const Seed& seed, i64 asked_us, const TableRows* tables,
                        Refusal& refusal) {
  const TableHeader& table = *tables[link.child].header;
  const auto refuse = [&](const char* reason, std::string detail) {
    refusal = {reason, std::move(detail)};
    return false;
  };
  if (change_.table != link.child)
    return refuse("wrong_table", "of table \"" + catalog_.table(change_.table).name + "\", the link's rows are of \"" +
                                     table.name + "\"");
  if (change_.operation == Operation::remove || change_.operation == Operation::erase)
    return refuse("bad_operation", "a delete or an erasure is no row");
  if (table.has_time && !check_times(table, asked_us, refusal)) return false;
  if (seed.row == NONE) return true;  // nobody knows whom the event may name
  for (const CellValue& cell : change_.cells)
    if (cell.index == table.column_count + link.index_in_child && !cell.is_null &&
        row_of(reader_, cell.key, tables[link.parent]) != seed.row)
      return refuse("wrong_parent", "link \"" + std::string(link.name) + "\" names another row than the session's");
  return true;
}

bool SessionRows::check_times(const TableHeader& table, i64 asked_us, Refusal& refusal) {
  if (!change_.has_known_time) change_.known_time_us = change_.event_time_us;
  if (!change_.has_event_time)
    refusal = {"missing_event_time",
               "table \"" + std::string(table.name) + "\" has a time column, the event has no event time"};
  else if (change_.event_time_us == ALWAYS_US)
    refusal = {"bad_event_time", "the event time is the reserved least value"};
  else if (change_.known_time_us == ALWAYS_US || change_.known_time_us == BARE_US)
    refusal = {"bad_known_time", "the known time is a reserved value"};
  else if (!is_visible(visible_time_us(change_.event_time_us, change_.known_time_us), asked_us))
    refusal = {"after_question", "it happened or was known after the question is asked"};
  else
    return true;
  return false;
}

// As the writer names rows of a table without a primary key that come from no log: by the event's id, if it has one.
KeyValue SessionRows::key_of_change(const TableHeader& table) const {
  if (table.has_key) return change_.key;
  return {!change_.event_id.empty(), false, 0, change_.event_id};
}

SessionRow SessionRows::row_of_change(const LinkHeader& link, u32 event, const TableRows* tables) {
  const TableHeader& table = *tables[link.child].header;
  const i64 event_us = table.has_time ? change_.event_time_us : ALWAYS_US;
  const i64 known_us = table.has_time ? change_.known_time_us : ALWAYS_US;
  const u32 first = static_cast<u32>(parents_.size());
  parents_.resize(first + table.link_count, NONE);
  for (const CellValue& cell : change_.cells) {
    if (cell.index < table.column_count || cell.is_null) continue;
    const u32 index = cell.index - table.column_count;
    parents_[first + index] = row_of(reader_, cell.key, tables[reader_.link(table.links[index]).parent]);
  }
  return {row_of(reader_, key_of_change(table), tables[link.child]), event, first, event_us, known_us};
}

// Whether the graph shows the row at the cut-off: as the seed itself, or as a child of it.
bool SessionRows::is_known(const LinkHeader& link, const SessionRow& row, const Seed& seed, const TableRows* tables,
                           const Snapshot& snapshot) const {
  if (row.row == NONE || seed.row == NONE) return false;
  if (link.child == seed.table && row.row == seed.row) return true;
  const TableHeader& table = *tables[link.child].header;
  const char* record = tables[link.child].record(row.row);
  if (reader_.resolve(snapshot, table, record, seed.cutoff_time_us).state != State::visible) return false;
  return reader_.parent(snapshot, table, record, link.index_in_child, seed.cutoff_time_us) == seed.row;
}

// Ends a session: newest first, of equal times the later given first, and of one key only the newest.
void SessionRows::keep_newest_first() {
  std::sort(given_.begin(), given_.end(), [](const Given& a, const Given& b) {
    return a.visible_time_us != b.visible_time_us ? a.visible_time_us > b.visible_time_us : a.row.event > b.row.event;
  });
  keys_.clear();
  for (const Given& given : given_)
    if (given.key.empty() || keys_.insert(given.key).second) rows_.push_back(given.row);
}

// ---- the walk's first hop -------------------------------------------------------------------------------------------

// Step by step instead of in stretches: the session's rows stand between what other links reach.
void Sampler::expand_with_session(const Seed& seed) {
  const bool lists_next = plan_.hops > 1;
  for (const Step& step : plan_.steps[0][seed.table]) {
    Step rest = step;
    if (static_cast<u32>(step.edge_type) == sessions_.edge_type()) rest.number -= put_session(step);
    if (rest.number == 0) continue;
    groups_.resize(0);
    candidate_count_ = 0;
    choose(seed, 0, {&rest, 1}, lists_next);
    fetch(lists_next);
    accept(seed, 0);
  }
}

// The session's newest as the first of a step's children; returns how many of its number they take. Those that find no
// room count too.
u32 Sampler::put_session(const Step& step) {
  const u32 count = static_cast<u32>(std::min<std::size_t>(step.number, session_.size()));
  const TableRows& rows = tables_[step.to_table];
  reserve(count);
  seen_.reserve(count, cursor_.table);
  session_first_ = cursor_.nodes;
  for (const SessionRow& given : session_.first(count)) {
    const u32 next = cursor_.nodes < plan_.node_limit ? cursor_.nodes : NONE;
    u32 node = next;
    if (given.row != NONE)
      node = next == NONE ? seen_.find(step.to_table, given.row, cursor_.table)
                          : seen_.find_or_add(step.to_table, given.row, next, cursor_.table);
    if (node == NONE) continue;
    if (node == next) {
      cursor_.table[node] = static_cast<u8>(step.to_table);
      cursor_.hop[node] = 1;
      cursor_.row[node] = -1;
      cursor_.event_time_us[node] = given.event_time_us;
      cursor_.known_time_us[node] = given.known_time_us;
      cursor_.parent[node] = cursor_.base;
      cursor_.version[node] = 0;
      cursor_.link[node] = step.edge_type;
      cursor_.record[node] = given.row == NONE ? nullptr : rows.record(given.row);
      session_nodes_.push(&given);
      ++cursor_.nodes;
    }
    cursor_.edge_source[cursor_.edges] = cursor_.base;
    cursor_.edge_target[cursor_.edges] = cursor_.base + static_cast<i32>(node);
    cursor_.edge_link[cursor_.edges] = step.edge_type;
    ++cursor_.edges;
  }
  return count;
}

}  // namespace nowgraph
