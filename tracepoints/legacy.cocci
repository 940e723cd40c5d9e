// SPDX-License-Identifier: MIT
//
// Inserts xtrace's tracepoints into a Xen whose calls and flushes take a global lock each: 4.17 and later.
//
//     spatch --sp-file legacy.cocci --in-place xen/common/smp.c xen/arch/x86/smp.c
//
// A file is changed whole or not at all: not a second time, and not where a part of it is not as expected.

@done@
@@
 #include <xen/smp_trace.h>

// xen/common/smp.c: first what must be there

@initiator depends on !done exists@
symbol call_lock, call_data, selected, func, wait;
@@
 on_selected_cpus(...)
 {
   ...
   spin_lock(&call_lock);
   ...
   call_data.wait = wait;
   ...
   smp_send_call_function_mask(&call_data.selected);
   while ( !cpumask_empty(&call_data.selected) )
     cpu_relax();
   ...
   spin_unlock(&call_lock);
 }

@target depends on initiator exists@
symbol call_data, func, info;
@@
 smp_call_function_interrupt(...)
 {
   ...
   void *info = call_data.info;
   ...
   if ( unlikely(!func) )
   {
     cpumask_clear_cpu(...);
   }
   else if ( call_data.wait )
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
symbol call_data;
@@
 static struct call_data_struct {
   ...
   int wait;
+  struct smp_trace_id trace_id;
   ...
 } call_data;

@depends on call exists@
@@
 #include <xen/smp.h>
+#include <xen/smp_trace.h>

@depends on call exists@
symbol call_lock, call_data, selected, func, wait, out;
@@
 on_selected_cpus(...)
 {
+  struct smp_trace_id trace_id;
+
   ...
+  trace_id = smp_trace_call_start(func, wait, selected);
   spin_lock(&call_lock);
   ...
   call_data.wait = wait;
+  call_data.trace_id = trace_id;
   ...
+  smp_trace_call_send(trace_id, &call_data.selected);
   smp_send_call_function_mask(&call_data.selected);
   while ( !cpumask_empty(&call_data.selected) )
     cpu_relax();
+  smp_trace_call_done(trace_id);
   ...
 }

@depends on call exists@
symbol call_data, func, info;
@@
 smp_call_function_interrupt(...)
 {
   ...
   void *info = call_data.info;
+  struct smp_trace_id trace_id = call_data.trace_id;
   ...
   if ( unlikely(!func) )
   {
+    smp_trace_call_enter(trace_id);
+    smp_trace_call_exit(trace_id);
     cpumask_clear_cpu(...);
   }
   else if ( call_data.wait )
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
symbol flush_lock, flush_cpumask, flush_flags, flags, va, INVALIDATE_TLB_VECTOR;
@@
 flush_area_mask(...)
 {
   ...
   spin_lock(&flush_lock);
   ...
   flush_flags = flags;
   ...
   send_IPI_mask(&flush_cpumask, INVALIDATE_TLB_VECTOR);
   while ( !cpumask_empty(&flush_cpumask) )
     cpu_relax();
   spin_unlock(&flush_lock);
   ...
 }

@flushed depends on requester exists@
symbol flags, flush_cpumask, flush_flags, flush_va, ipis;
@@
 invalidate_interrupt(...)
 {
   ...
   unsigned int flags = flush_flags;
   ...
   perfc_incr(ipis);
   ...
   flush_area_local(flush_va, flags);
   ...
   cpumask_clear_cpu(smp_processor_id(), &flush_cpumask);
 }

@flush depends on flushed@
symbol flush_flags;
@@
 static unsigned int flush_flags;
+static struct smp_trace_id flush_trace_id;

@depends on flush exists@
@@
 #include <xen/sched.h>
+#include <xen/smp_trace.h>

@depends on flush exists@
symbol flush_lock, flush_cpumask, flush_flags, flags, va, INVALIDATE_TLB_VECTOR;
@@
 flush_area_mask(...)
 {
+  struct smp_trace_id trace_id;
   ...
+  trace_id = smp_trace_flush_start(va, flags);
   spin_lock(&flush_lock);
   ...
   flush_flags = flags;
+  flush_trace_id = trace_id;
   ...
+  smp_trace_flush_send(trace_id, &flush_cpumask);
   send_IPI_mask(&flush_cpumask, INVALIDATE_TLB_VECTOR);
   while ( !cpumask_empty(&flush_cpumask) )
     cpu_relax();
+  smp_trace_flush_done(trace_id);
   spin_unlock(&flush_lock);
   ...
 }

@depends on flush exists@
symbol flags, flush_cpumask, flush_flags, flush_va, ipis;
@@
 invalidate_interrupt(...)
 {
   ...
   unsigned int flags = flush_flags;
+  struct smp_trace_id trace_id = flush_trace_id;
   ...
   perfc_incr(ipis);
+  smp_trace_flush_enter(trace_id);
   ...
+  smp_trace_flush_exit(trace_id);
   cpumask_clear_cpu(smp_processor_id(), &flush_cpumask);
 }
