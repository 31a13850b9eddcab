#include "sampler.hpp"

#include "sampler_ahead.hpp"
#include "sampler_parents.hpp"

namespace nowgraph {

std::unique_ptr<Sample> Sampler::begin(u64 request) {
  request_ = request;
  std::unique_ptr<Sample> sample = pool_->take();
  const u32 tables = reader_.graph().table_count;
  sample->clear(tables);
  sessions_.clear();
  gather_.clear();
  snapshot_ = pin_at(reader_, *sample);
  tables_.clear();
  for (u32 table = 0; table < tables; ++table) tables_.emplace_back(reader_, table, snapshot_);
  find_unread();
  return sample;
}

void Sampler::walk_all(Sample& sample) {
  sample_ = &sample;
  const std::size_t count = seeds_.seeds().size();
  sample.cutoff_time_us.reserve(count);
  sample.seed_offset.reserve(count + 1);
  sample.edge_offset.reserve(count + 1);
  sample.seed_offset.push(0);
  sample.edge_offset.push(0);
  for (std::size_t i = 0; i < count; ++i) {
    preview(i);
    Seed& seed = seeds_.at(i);
    seeds_.resolve(seed, tables_.data(), snapshot_);
    random_.restart(seed_ ^ mix64(request_), i);
    session_ = sessions_.of(i);
    walk(seed);
    sample.cutoff_time_us.push(seed.cutoff_time_us);
    sample.seed_offset.push(static_cast<i64>(sample.table.size()));
    sample.edge_offset.push(static_cast<i64>(sample.edge_source.size()));
  }
  gather_.fill(sample.gathered, snapshot_);
}

// Room for `more` nodes and edges; sets the cursor's pointers anew.
void Sampler::reserve(std::size_t more) {
  Sample& out = *sample_;
  const std::size_t node = static_cast<std::size_t>(cursor_.base), edge = out.edge_source.size();
  out.reserve_nodes(node + cursor_.nodes + more);
  out.reserve_edges(edge + cursor_.edges + more);
  records_.reserve(cursor_.nodes + more);
  cursor_.table = out.table.data() + node;
  cursor_.hop = out.hop.data() + node;
  cursor_.row = out.row.data() + node;
  cursor_.event_time_us = out.event_time_us.data() + node;
  cursor_.known_time_us = out.known_time_us.data() + node;
  cursor_.parent = out.parent.data() + node;
  cursor_.version = out.version.data() + node;
  cursor_.link = out.link.data() + node;
  cursor_.edge_source = out.edge_source.data() + edge;
  cursor_.edge_target = out.edge_target.data() + edge;
  cursor_.edge_link = out.edge_link.data() + edge;
  cursor_.record = records_.data();
}

void Sampler::put_seed(const Seed& seed) {
  seen_.clear();
  session_nodes_.resize(0);
  cursor_.nodes = cursor_.edges = 0;
  cursor_.base = static_cast<i32>(sample_->table.size());
  reserve(1);
  cursor_.table[0] = static_cast<u8>(seed.table);
  cursor_.hop[0] = 0;
  cursor_.row[0] = seed.origin == Origin::event || seed.row == NONE ? -1 : static_cast<i64>(seed.row);
  cursor_.event_time_us[0] = seed.event_time_us;
  cursor_.known_time_us[0] = seed.known_time_us;
  cursor_.parent[0] = -1;
  cursor_.version[0] = seed.version;
  cursor_.link[0] = -1;
  cursor_.record[0] = seed.record;
  cursor_.nodes = 1;
  seen_.reserve(1, cursor_.table);
  // Its own row is node 0 and so never becomes its neighbor, whether the seed is that row or an event that repeats it.
  if (seed.row != NONE) seen_.find_or_add(seed.table, seed.row, 0, cursor_.table);
}

void Sampler::walk(const Seed& seed) {
  put_seed(seed);
  u32 start = 0, end = 1;
  for (u32 hop = 0; hop < plan_.hops && start < end; ++hop) {
    const auto& steps = plan_.steps[hop];
    const bool lists_next = hop + 1 < plan_.hops;
    const bool with_session = hop == 0 && !session_.empty();
    const bool unread = !with_session && leads_to_unread(hop, start, end);
    if (with_session) expand_with_session(seed);
    if (unread) expand_to_unread(seed, hop, start, end);
    const u32 first = with_session || unread ? end : start;
    for (u32 node = first; node < std::min(end, first + AHEAD_BLOCK); ++node) ahead_block(steps, node);
    for (u32 node = first; node < end;) {
      groups_.resize(0);
      candidate_count_ = 0;
      for (; node < end && candidate_count_ < CANDIDATES_MAX; ++node) {
        if (node + AHEAD_BLOCK < end) ahead_block(steps, node + AHEAD_BLOCK);
        if (node + AHEAD_HUB < end) ahead_hub(steps, node + AHEAD_HUB);
        choose(seed, node, steps[cursor_.table[node]], lists_next);
      }
      fetch(lists_next);
      accept(seed, hop);
    }
    start = end;
    end = cursor_.nodes;
  }
  Sample& out = *sample_;
  out.set_nodes(static_cast<std::size_t>(cursor_.base) + cursor_.nodes);
  out.set_edges(out.edge_source.size() + cursor_.edges);
  gather(seed);
}

void Sampler::gather(const Seed& seed) {
  Sample& out = *sample_;
  GatheredTable* gathered = out.gathered.data();
  if (seed.origin == Origin::event)
    gather_.event(gathered[seed.table], out.unseen, seed.table, cursor_.base, seeds_.decode_again(seed), false);
  else if (seed.origin == Origin::first_version)
    gather_.first_version(gathered[seed.table], cursor_.base, seed, snapshot_);
  else
    gather_.row(gathered[seed.table], seed.table, cursor_.base, seed.record, seed.version, snapshot_,
                seed.cutoff_time_us);
  if (!gather_.any_columns()) return;
  const u32 given = static_cast<u32>(session_nodes_.size());
  const u32 first = given == 0 ? cursor_.nodes : session_first_;
  const auto rows = [&](u32 from, u32 to) {
    for (u32 node = from; node < to; ++node)
      gather_.row(gathered[cursor_.table[node]], cursor_.table[node], cursor_.base + static_cast<i32>(node),
                  cursor_.record[node], cursor_.version[node], snapshot_, seed.cutoff_time_us);
  };
  rows(1, first);
  for (u32 i = 0; i < given; ++i) {
    const u32 table = cursor_.table[first + i];
    gather_.event(gathered[table], out.unseen, table, cursor_.base + static_cast<i32>(first + i),
                  sessions_.decode_again(*session_nodes_[i]), true);
  }
  rows(first + given, cursor_.nodes);
}

// ---- choose ---------------------------------------------------------------------------------------------------------

void Sampler::choose(const Seed& seed, u32 node, std::span<const Step> steps, bool lists_next) {
  const char* record = cursor_.record[node];
  for (const Step& step : steps) {
    if (!step.to_parent) {
      if (record != nullptr) choose_children(step, node, record, seed.cutoff_time_us);
      continue;
    }
    // A row that was reached from a parent leads back to it: the link was looked at on the way here.
    if (cursor_.link[node] == (step.edge_type ^ 1)) {
      const u32 origin = static_cast<u32>(cursor_.parent[node] - cursor_.base);
      if (origin != 0) add_parent(step, node, origin);
      continue;
    }
    const u32 parent = parent_of(seed, node, step);
    const TableRows& rows = tables_[step.to_table];
    if (parent >= rows.limit) continue;
    const char* parent_record = rows.record(parent);
    if (lists_next || rows.shows_cells() || !rows.uniform()) rows.prefetch_record(parent_record, lists_next);
    candidates_.reserve(candidate_count_ + 1);
    candidates_[candidate_count_].record = parent_record;
    candidates_[candidate_count_].row = parent;
    add_parent(step, node, NONE);
  }
}

// One candidate, the next; none of its own when it is known which node it is.
NOWGRAPH_INLINE void Sampler::add_parent(const Step& step, u32 node, u32 known) {
  Group& group = *groups_.extend(1);
  group.step = &step;
  group.node = node;
  group.count = 1;
  group.known = known;
  group.first = candidate_count_++;
}

void Sampler::choose_children(const Step& step, u32 node, const char* record, i64 cutoff_time_us) {
  const u64 word = Reader::list_word_of(record, step.word_in_parent);
  if (list_count(word) == 0) return;
  const List list = reader_.list(word);
  const u32 visible = reader_.visible_prefix(list, *step.to, cutoff_time_us);
  if (visible == 0) return;
  const u32 count = std::min(step.number, visible);
  const u32 first = candidate_count_;
  const bool drawn = count < visible && step.strategy != Strategy::most_recent;
  // Field by field: a group put together on the stack is read back before its stores have settled.
  Group& group = *groups_.extend(1);
  group.step = &step;
  group.node = node;
  group.visible = visible;
  group.first = first;
  group.count = count;
  group.drawn = drawn;
  group.list = list;
  candidate_count_ += count;
  if (!drawn) return;
  positions_.reserve(candidate_count_);
  u32* position = positions_.data() + first;
  const auto take = [&](u32 at) {
    *position++ = at;
    prefetch(&reader_.at(list, at));
  };
  if (step.strategy == Strategy::uniform)
    draw_uniform(random_, tried_, visible, count, take);
  else
    draw_recency(random_, tried_, visible, count, step.half_life, take);
}

// ---- fetch ----------------------------------------------------------------------------------------------------------

void Sampler::fetch(bool lists_next) {
  candidates_.reserve(candidate_count_);
  for (const Group& group : groups_.span()) {
    if (group.step->to_parent) continue;
    const TableRows& rows = tables_[group.step->to_table];
    Candidate* candidate = candidates_.data() + group.first;
    const auto take = [&](const Entry& entry) {
      const u32 row = reader_.child(entry);
      const char* record = row < rows.limit ? rows.record(row) : nullptr;
      if (record != nullptr) rows.prefetch_record(record, lists_next);
      candidate->record = record;
      candidate->entry = entry;
      candidate->row = row;
      ++candidate;
    };
    if (group.drawn) {
      for (u32 i = 0; i < group.count; ++i) take(reader_.at(group.list, positions_[group.first + i]));
    } else if (group.list.block != nullptr) {
      const Entry* newest = group.list.block + group.visible - 1;
      for (u32 i = 0; i < group.count; ++i) take(newest[-static_cast<std::ptrdiff_t>(i)]);
    } else {
      for (u32 i = 0; i < group.count; ++i) take(reader_.at(group.list, group.visible - 1 - i));
    }
  }
}

// ---- accept ---------------------------------------------------------------------------------------------------------

void Sampler::accept(const Seed& seed, u32 hop) {
  reserve(candidate_count_);
  Cursor out = cursor_;
  const u8 next_hop = static_cast<u8>(hop + 1);
  const u32 node_limit = plan_.node_limit;
  for (const Group& group : groups_.span()) {
    const Step& step = *group.step;
    const TableRows& rows = tables_[step.to_table];
    const auto write_edge = [&](u32 node) __attribute__((always_inline)) { put_edge(out, step, group.node, node); };
    const auto write_node = [&](const char* record, u32 row, const Visible& shown) __attribute__((always_inline)) {
      put_node(out, step, group.node, next_hop, record, row, shown);
    };
    if (step.to_parent && group.known != NONE) {
      write_edge(group.known);
      continue;
    }
    seen_.reserve(group.count, out.table);
    if (step.to_parent) {
      const Candidate& parent = candidates_[group.first];
      u32 node = seen_.find(step.to_table, parent.row, out.table);
      if (node == 0 || (node == NONE && out.nodes == node_limit)) continue;
      if (node == NONE) {  // only now is the record waited for
        const Visible shown = rows.uniform() ? rows.shown_by_all()
                                             : reader_.resolve(snapshot_, *rows.header, parent.record, seed.cutoff_time_us);
        if (shown.state == State::hidden) continue;
        node = seen_.find_or_add(step.to_table, parent.row, out.nodes, out.table);
        write_node(parent.record, parent.row, shown);
      }
      write_edge(node);
      continue;
    }
    // Whether a visible row counts: all do but the seed, also those that find no room.
    const auto reach = [&](const char* record, u32 row, const Visible& shown) __attribute__((always_inline)) {
      const u32 node = out.nodes < node_limit ? seen_.find_or_add(step.to_table, row, out.nodes, out.table)
                                              : seen_.find(step.to_table, row, out.table);
      if (node == 0) return false;
      if (node == NONE) return true;
      if (node == out.nodes) write_node(record, row, shown);
      write_edge(node);
      return true;
    };
    const u32 parent_row = out.row[group.node] >= 0    ? static_cast<u32>(out.row[group.node])
                           : is_of_session(group.node) ? session_nodes_[group.node - session_first_]->row
                                                       : seed.row;
    const auto take = [&](const char* record, const Entry& entry, u32 row) __attribute__((always_inline)) {
      if (record == nullptr) return false;
      if (__builtin_expect(rows.head(record) == NO_VERSION, 1))
        return reach(record, row, {State::visible, 0, load<i64>(record + rows.event_offset),
                                   load<i64>(record + rows.event_offset + 8)});
      if (!reader_.linked(snapshot_, step.to_table, *rows.header, entry, row, record, step.index_in_child, parent_row,
                          seed.cutoff_time_us))
        return false;
      return reach(record, row, reader_.resolve(snapshot_, *rows.header, record, seed.cutoff_time_us));
    };
    const Candidate* candidate = candidates_.data() + group.first;
    u32 accepted = 0;
    for (u32 i = 0; i < group.count; ++i) accepted += take(candidate[i].record, candidate[i].entry, candidate[i].row);
    if (__builtin_expect(accepted < group.count && group.count < group.visible, 0))
      replenish(group, accepted, parent_row, seed, take);
  }
  cursor_ = out;
}

// Some of the rows taken do not count (deleted, moved to another parent, not yet published, the seed itself): others of
// the list take their place, by the group's own strategy.
template <class Take>
void Sampler::replenish(const Group& group, u32 accepted, u32 parent_row, const Seed& seed, Take&& take) {
  const TableRows& rows = tables_[group.step->to_table];
  const auto take_at = [&](u32 position) {
    const Entry entry = reader_.at(group.list, position);
    const u32 row = reader_.child(entry);
    accepted += take(row < rows.limit ? rows.record(row) : nullptr, entry, row);
  };
  if (group.step->strategy == Strategy::most_recent) {
    for (u32 position = group.visible - group.count; position-- > 0 && accepted < group.count;) take_at(position);
    return;
  }
  tried_.clear(group.count * 2);
  for (u32 i = 0; i < group.count; ++i) tried_.insert(positions_[group.first + i]);
  if (group.step->strategy == Strategy::recency_weighted) {
    const auto admits = [&](u32 position) {
      return counts(*group.step, parent_row, reader_.at(group.list, position), seed);
    };
    race_recency(random_, tried_, group.visible, group.count - accepted, group.step->half_life, admits, take_at);
    return;
  }
  while (accepted < group.count && tried_.size() < group.visible / 2) {
    const u32 position = random_.below(group.visible);
    if (tried_.insert(position)) take_at(position);
  }
  if (accepted == group.count) return;
  std::vector<u32> rest;
  for (u32 position = 0; position < group.visible; ++position)
    if (!tried_.contains(position)) rest.push_back(position);
  for (u32 i = 0; i < rest.size() && accepted < group.count; ++i) {
    std::swap(rest[i], rest[i + random_.below(static_cast<u32>(rest.size()) - i)]);
    take_at(rest[i]);
  }
}

bool Sampler::counts(const Step& step, u32 parent_row, const Entry& entry, const Seed& seed) const {
  const TableRows& rows = tables_[step.to_table];
  const u32 row = reader_.child(entry);
  if (row >= rows.limit || (row == seed.row && step.to_table == seed.table)) return false;
  return reader_.linked(snapshot_, step.to_table, *rows.header, entry, row, rows.record(row), step.index_in_child,
                        parent_row, seed.cutoff_time_us);
}

}  // namespace nowgraph
