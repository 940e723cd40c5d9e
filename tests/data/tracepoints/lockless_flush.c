/* A flush in the shape of the lockless design: a call of a function that flushes. */

#include <xen/sched.h>

struct flush_data {
    const void *va;
    unsigned int flags;
};

static void cf_check invalidate_cb(void *info)
{
    const struct flush_data *wanted = info;
    unsigned int flags = wanted->flags;

    if ( flags & FLUSH_VCPU_STATE )
        flags &= ~FLUSH_VCPU_STATE;
    if ( flags )
        flush_area_local(wanted->va, flags);
}

void flush_area_mask(const cpumask_t *mask, const void *va, unsigned int flags)
{
    unsigned int me = smp_processor_id();
    cpumask_t others = *mask;

    if ( cpumask_test_cpu(me, mask) )
        flush_area_local(va, flags);
    cpumask_clear_cpu(me, &others);

    if ( !cpumask_empty(&others) )
    {
        cpumask_t flush_cpumask;
        struct flush_data wanted = { .va = va, .flags = flags };

        cpumask_and(&flush_cpumask, &others, &cpu_online_map);
        on_selected_cpus(&flush_cpumask, invalidate_cb, &wanted, 1);
    }
}
