// Parents: which row a node's link names, and the hops that only lead to parents whose records say nothing. Part of
// sampler.cpp.
#pragma once

#include "sampler.hpp"

namespace nowgraph {

// The row that a node's link names at the cut-off, or NONE.
NOWGRAPH_INLINE u32 Sampler::parent_of(const Seed& seed, u32 node, const Step& step) const {
  if (node == 0 && seed.given_parents) return seeds_.parent(seed, step.index_in_child);
  if (__builtin_expect(is_of_session(node), 0))
    return sessions_.parent(*session_nodes_[node - session_first_], step.index_in_child);
  if (cursor_.version[node] < 0) return NONE;
  const char* record = cursor_.record[node];
  const TableRows& rows = tables_[cursor_.table[node]];
  // The node was shown, so what has no other version than the inline one was visible.
  if (__builtin_expect(rows.head(record) == NO_VERSION, 1))
    return Reader::inline_parent(*rows.header, record, step.index_in_child);
  return reader_.parent(snapshot_, *rows.header, record, step.index_in_child, seed.cutoff_time_us);
}

// Of every hop and table, whether it leads to such parents alone.
void Sampler::find_unread() {
  unread_.clear();
  for (const auto& steps : plan_.steps)
    for (const std::vector<Step>& of_table : steps)
      unread_.push_back(std::all_of(of_table.begin(), of_table.end(), [&](const Step& step) {
        return step.to_parent && tables_[step.to_table].uniform();
      }));
}

bool Sampler::leads_to_unread(u32 hop, u32 start, u32 end) const {
  const u8* unread = unread_.data() + hop * tables_.size();
  for (u32 node = start; node < end; ++node)
    if (!unread[cursor_.table[node]]) return false;
  return true;
}

// A hop without a pass that waits: node by node and link by link, as choose and accept would.
void Sampler::expand_to_unread(const Seed& seed, u32 hop, u32 start, u32 end) {
  const auto& steps = plan_.steps[hop];
  const bool lists_next = hop + 1 < plan_.hops;
  std::size_t most = 0;
  for (const std::vector<Step>& of_table : steps) most = std::max(most, of_table.size());
  most *= end - start;
  reserve(most);
  seen_.reserve(static_cast<u32>(most), cursor_.table);
  Cursor out = cursor_;
  const u32 node_limit = plan_.node_limit;
  for (u32 node = start; node < end; ++node) {
    for (const Step& step : steps[out.table[node]]) {
      u32 reached;
      if (out.link[node] == (step.edge_type ^ 1)) {  // back to where it was reached from
        reached = static_cast<u32>(out.parent[node] - out.base);
      } else {
        const TableRows& rows = tables_[step.to_table];
        const u32 row = parent_of(seed, node, step);
        if (row >= rows.limit) continue;
        reached = out.nodes < node_limit ? seen_.find_or_add(step.to_table, row, out.nodes, out.table)
                                         : seen_.find(step.to_table, row, out.table);
        if (reached == NONE) continue;
        if (reached == out.nodes) {
          const char* record = rows.record(row);
          if (lists_next || rows.shows_cells()) rows.prefetch_record(record, lists_next);
          put_node(out, step, node, static_cast<u8>(hop + 1), record, row, rows.shown_by_all());
        }
      }
      if (reached != 0) put_edge(out, step, node, reached);
    }
  }
  cursor_ = out;
}

}  // namespace nowgraph
