/* A call in the shape of Xen's legacy design: one request at a time on the host, under a lock. */

#include <xen/smp.h>
#include <xen/spinlock.h>

static DEFINE_SPINLOCK(call_lock);
static struct call_data_struct {
    void (*func)(void *info);
    void *info;
    int wait;
    cpumask_t selected;
} call_data;

void on_selected_cpus(const cpumask_t *selected, void (*func)(void *info), void *info, int wait)
{
    ASSERT(local_irq_is_enabled());

    spin_lock(&call_lock);
    cpumask_copy(&call_data.selected, selected);
    if ( cpumask_empty(&call_data.selected) )
        goto out;

    call_data.func = func;
    call_data.info = info;
    call_data.wait = wait;
    smp_send_call_function_mask(&call_data.selected);
    while ( !cpumask_empty(&call_data.selected) )
        cpu_relax();

out:
    spin_unlock(&call_lock);
}

void smp_call_function_interrupt(void)
{
    unsigned int me = smp_processor_id();
    void (*func)(void *info) = call_data.func;
    void *info = call_data.info;

    if ( !cpumask_test_cpu(me, &call_data.selected) )
        return;

    if ( unlikely(!func) )
    {
        cpumask_clear_cpu(me, &call_data.selected);
    }
    else if ( call_data.wait )
    {
        (*func)(info);
        cpumask_clear_cpu(me, &call_data.selected);
    }
    else
    {
        cpumask_clear_cpu(me, &call_data.selected);
        (*func)(info);
    }
}
