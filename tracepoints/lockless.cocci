// SPDX-License-Identifier: MIT
//
// Inserts xtrace's tracepoints into a Xen with the series "Lockless SMP function call and TLB flushing" (April 2026):
//
//     spatch --sp-file lockless.cocci --in-place xen/common/smp.c xen/arch/x86/smp.c
//
// A file is changed whole or not at all: not a second time, and not where a part of it is not as expected.

@done@
@@
 #include <xen/smp_trace.h>

// xen/common/smp.c: first what must be there

@initiator depends on !done exists@
symbol selected, func, wait;
identifier data;
@@
 on_selected_cpus(...)
 {
   ...
   if ( cpumask_empty(selected) )
     return;
   ...
   data->wait = wait;
   ...
   smp_send_call_function_mask(&data->selected);
   if ( wait )
   {
     ...
   }
 }

@target depends on initiator exists@
symbol func, info;
identifier data;
@@
 smp_call_function_interrupt(...)
 {
   ...
   info = data->info;
   ...
   if ( unlikely(!func) )
   {
     cpumask_clear_cpu(...);
   }
   else if ( data->wait )
   {
     ...
     (*func)(info);
     ...
     cpumask_clear_cpu(...);
   }
   else
   {
     ...
     cpumask_clear_cpu(...);
     ...
     (*func)(info);
   }
   ...
 }

@call depends on target@
@@
 struct call_data_struct {
   ...
   int wait;
+  struct smp_trace_id trace_id;
   ...
 };

@depends on call@
@@
 #include <xen/smp.h>
+#include <xen/smp_trace.h>

@depends on call exists@
symbol selected, func, wait;
identifier data;
@@
 on_selected_cpus(...)
 {
+  struct smp_trace_id trace_id;
   ...
   if ( cpumask_empty(selected) )
     return;
+
+  trace_id = smp_trace_call_start(func, wait, selected);
   ...
   data->wait = wait;
+  data->trace_id = trace_id;
   ...
+  smp_trace_call_send(trace_id, selected);
   smp_send_call_function_mask(&data->selected);
   if ( wait )
   {
     ...
   }
+
+  smp_trace_call_done(trace_id);
 }

@depends on call exists@
symbol func, info;
identifier data;
@@
 smp_call_function_interrupt(...)
 {
+  struct smp_trace_id trace_id;
   ...
   info = data->info;
+  trace_id = data->trace_id;
   ...
   if ( unlikely(!func) )
   {
+    smp_trace_call_enter(trace_id);
+    smp_trace_call_exit(trace_id);
     cpumask_clear_cpu(...);
   }
   else if ( data->wait )
   {
     ...
+    smp_trace_call_enter(trace_id);
     (*func)(info);
+    smp_trace_call_exit(trace_id);
     ...
   }
   else
   {
     ...
+    smp_trace_call_enter(trace_id);
     (*func)(info);
+    smp_trace_call_exit(trace_id);
   }
   ...
 }

// xen/arch/x86/smp.c: likewise

@requester depends on !done exists@
symbol va, flags, flush_cpumask;
identifier data, callback;
@@
 flush_area_mask(...)
 {
   ...
   struct flush_data data = { ... };
   ...
   cpumask_and(&flush_cpumask, ...);
   ...
   on_selected_cpus(&flush_cpumask, callback, &data, ...);
   ...
 }

@flushed depends on requester exists@
symbol flags;
identifier data, requester.callback;
statement S;
@@
 callback(...)
 {
   ...
   unsigned int flags = data->flags;
   S
   if ( ... )
     flush_area_local(data->va, flags);
 }

@flush depends on flushed@
@@
 struct flush_data {
   ...
   unsigned int flags;
+  struct smp_trace_id trace_id;
 };

@depends on flush@
@@
 #include <xen/sched.h>
+#include <xen/smp_trace.h>

@depends on flush exists@
symbol va, flags, flush_cpumask;
identifier data, callback;
@@
 flush_area_mask(...)
 {
   ...
   struct flush_data data = { ... };
   ...
+  data.trace_id = smp_trace_flush_start(va, flags);
   cpumask_and(&flush_cpumask, ...);
   ...
+  smp_trace_flush_send(data.trace_id, &flush_cpumask);
   on_selected_cpus(&flush_cpumask, callback, &data, ...);
+  smp_trace_flush_done(data.trace_id);
   ...
 }

@depends on flush exists@
symbol flags;
identifier data, requester.callback;
statement S;
@@
 callback(...)
 {
   ...
   unsigned int flags = data->flags;
+
+  smp_trace_flush_enter(data->trace_id);
   S
   if ( ... )
     flush_area_local(data->va, flags);
+  smp_trace_flush_exit(data->trace_id);
 }
